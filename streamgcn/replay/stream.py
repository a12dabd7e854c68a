"""A file's events as the messages of a log of one partition, in the order of the log."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from consumer.event.json import Event, encode
from consumer.kafka.client import Message

TOPIC = "replay"
PARTITION = 0


class Stream:
    """The events of a file; the number of an event is its offset."""

    def __init__(self, rows: pa.Table) -> None:
        """`rows`: user_id, item_id, interaction, type and timestamp (microseconds, UTC)."""
        self._rows = rows.select(["user_id", "item_id", "interaction", "timestamp", "type"])

    def __len__(self) -> int:
        return len(self._rows)

    def messages(self, begin: int, end: int) -> list[Message]:
        """The events begin..end, each as a message that a client would have sent."""
        rows = self._rows.slice(begin, end - begin)
        columns = {name: rows[name] for name in rows.schema.names}
        columns["timestamp"] = pc.divide(rows["timestamp"].cast(pa.int64()), 1000)
        fields = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        return [
            Message(TOPIC, PARTITION, offset, event.timestamp, user_key(event), encode(event), [])
            for offset, event in enumerate((Event(*each) for each in fields), begin)
        ]

    def users(self, begin: int, end: int) -> list[str]:
        """The users of the events begin..end, each once."""
        users: list[str] = self._rows["user_id"].slice(begin, end - begin).unique().to_pylist()
        return users

    def day(self, number: int) -> str:
        """The day of an event, as in 2026-11-28."""
        moment = self._rows["timestamp"][number].as_py()
        return str(moment.date().isoformat())


def user_key(event: Event) -> bytes:
    """The key of a message: the user's id."""
    return event.user_id.encode()


def spans(begin: int, end: int, size: int, cuts: set[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of stretches of at most `size` events, none of which goes across a cut."""
    while begin < end:
        stop = min([begin + size, end, *(cut for cut in cuts if cut > begin)])
        yield begin, stop
        begin = stop
