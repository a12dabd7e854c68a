"""The command line, the embedded broker and Redis, and the demo."""
