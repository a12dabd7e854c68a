"""Stretches: how many messages of a poll are decoded at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from consumer.event import arrow
from consumer.kafka.client import Message
from consumer.kafka.records import Unreadable

STRETCH = 2_000  # JSON messages a decoder call
MESSAGE_BYTES = 10 * 1024 * 1024  # of one message, and of the JSON of a stretch


def stretches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Bulk, large and unreadable messages each alone, the others many together.

    A poll of a few megabytes may stand for gigabytes of rows, as small bulk messages expand to tens
    of megabytes each. So whoever holds what it decodes takes one stretch after another.
    """
    begin = size = 0
    for at, message in enumerate(messages):
        length = len(message.value or b"")
        single = (
            length > MESSAGE_BYTES
            or isinstance(message.value, Unreadable)
            or bool(message.headers and arrow.is_bulk(message.headers))
        )
        if single or size + length > MESSAGE_BYTES or at - begin == STRETCH:
            if at > begin:
                yield messages[begin:at]
            begin, size = at, 0
        if single:
            yield messages[at : at + 1]
            begin = at + 1
        else:
            size += length
    if begin < len(messages):
        yield messages[begin:]
