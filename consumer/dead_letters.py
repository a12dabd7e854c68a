"""Rejected messages, kept with their reason in the topic `<topic>.dead`."""

from __future__ import annotations

from consumer.events import EventError
from consumer.stream import Message, Publisher


class DeadLetters:
    """Publishes rejected messages with their original bytes, key and headers."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic
        self.count = 0

    def reject(self, message: Message, error: EventError) -> None:
        """Queue the message for the dead-letter topic with headers `error` and `source`."""
        source = f"{self._topic}/{message.partition}/{message.offset}"
        headers = [*message.headers, ("error", str(error).encode()), ("source", source.encode())]
        self._publisher.send(f"{self._topic}.dead", message.value, message.key, headers)
        self.count += 1

    def flush(self) -> None:
        """Wait until all are acknowledged; only then may their offsets be stored."""
        self._publisher.flush()
