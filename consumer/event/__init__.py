"""The event: bytes of a message -> columns -> good rows and reasons."""
