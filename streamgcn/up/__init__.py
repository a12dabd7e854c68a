"""What `streamgcn up` needs: the child processes, the folder, the guard."""
