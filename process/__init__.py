"""What every process is made of: errors, settings, the log; imports no room."""
