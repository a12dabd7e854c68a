"""The command line, the embedded services, reading files, and the demo."""
