"""The command `streamgcn`: a file for each group of commands, and the list of all in main.py."""
