"""What is raised where a message is not a valid event, and how much of it a reason shows."""

from __future__ import annotations

from process.errors import StreamGCNError

SHOWN = 60  # characters of a foreign text in a reason


class EventError(StreamGCNError):
    """A message is not a valid event; the text says why and what would be."""
