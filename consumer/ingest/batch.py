"""Rows that are not stored yet, and the offsets that they span."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.order import taken
from consumer.edge.schema import TABLE
from consumer.edge.store import EdgeStore, Log
from consumer.event.json import FORGET
from consumer.event.rules import HERE
from consumer.ingest.decode import Rejected, headers_size, rows
from consumer.ingest.letters import Forget
from consumer.kafka.client import Message

OBJECTS_BYTES = 1_000  # that a letter takes beside its own bytes


@dataclass
class Batch:
    """One commit in the making."""

    first: dict[int, int | None] = field(default_factory=dict)  # partition -> offset it begins at
    after: dict[int, int] = field(default_factory=dict)  # partition -> offset to go on from
    noted: list[Rejected | Forget] = field(default_factory=list)  # for the dead-letter topic
    bytes: int = 0
    since: float = 0.0  # monotonic seconds
    events: int = 0  # none where all messages were rejected
    rejected: int = 0  # messages, and rows of bulk messages
    unforeseen: int = 0  # of these, for an error that nobody expected
    _tables: list[pa.Table] = field(default_factory=list)

    def take(self, messages: Sequence[Message], position: int | None, at: int) -> list[Rejected]:
        """Add messages of one partition, whether they are events or not; returns those rejected.

        Args:
            position: offset the batch begins at if they are the first of their partition; None
                where the store has nothing of it.
            at: when the poll that brought them ended, epoch microseconds.
        """
        partition = messages[0].partition
        if not self.after:
            self.since = time.monotonic()
        self.first.setdefault(partition, position)
        self.after[partition] = messages[-1].offset + 1
        made, rejected = rows(messages)
        table = taken(made, at)
        self.noted += sorted([*rejected, *_forgets(table)], key=_offset)
        self._tables.append(table)
        self.events += len(table)
        self.rejected += len(rejected)
        self.unforeseen += sum(each.unforeseen for each in rejected)
        self.bytes += table.nbytes + sum(map(_size, rejected))
        return rejected

    @property
    def counts(self) -> dict[str, int]:
        """What counts once the batch is stored: if it is dropped, all of it is read again."""
        return {
            "events": self.events,
            "rejected": self.rejected,
            "unforeseen": self.unforeseen,
        }

    def write(self, store: EdgeStore, log: Log) -> None:
        """Commit it: first the erasures it asks for, then its rows and offsets.

        Args:
            log: that all messages are of.

        Raises:
            Fenced, StoreError: as `EdgeStore.append`.
        """
        table = pa.concat_tables(self._tables) if self._tables else TABLE.empty_table()
        forgets = pc.equal(table["type"], FORGET)
        if pc.any(forgets).as_py():
            store.erase(table.filter(forgets), self.first, log)
            table = _without_forgotten(table, forgets.to_numpy())
        store.append(table, self.first, self.after, log)


def _size(rejected: Rejected) -> int:
    """Bytes in memory, about: a letter is a handful of objects beside its bytes."""
    message = rejected.message
    held = len(rejected.value or b"") + len(message.key or b"") + headers_size(message.headers)
    return held + len(rejected.reason) + OBJECTS_BYTES


def _forgets(table: pa.Table) -> Iterator[Forget]:
    found = table.filter(pc.equal(table["type"], FORGET))
    names = ("user_id", "kafka_partition", "kafka_offset", "item_id")
    for user, partition, offset, item in zip(*(found[n].to_pylist() for n in names), strict=True):
        yield Forget(user, partition, offset, everywhere=item != HERE)


def _offset(noted: Rejected | Forget) -> int:
    return noted.offset if isinstance(noted, Forget) else noted.message.offset


def _without_forgotten(table: pa.Table, forgets: np.ndarray) -> pa.Table:
    """The rows without those that a later row forgets, of any or of the same partition, and without
    these.
    """
    columns = (table[name].to_pylist() for name in ("user_id", "item_id", "kafka_partition"))
    users, items, partitions = columns
    # The place of each row in the order; a batch has the rows of one poll partition by partition.
    polls = table["ingested_at"].cast(pa.int64()).to_numpy()
    rank = np.empty(len(table), np.int64)
    rank[np.lexsort((np.arange(len(table)), table["kafka_partition"].to_numpy(), polls))] = (
        np.arange(len(table))
    )
    here: dict[tuple[str, int], int] = {}
    anywhere: dict[str, int] = {}
    for at in np.flatnonzero(forgets).tolist():
        user, place = users[at], int(rank[at])
        here[user, partitions[at]] = max(place, here.get((user, partitions[at]), -1))
        if items[at] != HERE:
            anywhere[user] = max(place, anywhere.get(user, -1))
    kept = [
        max(here.get((user, partition), -1), anywhere.get(user, -1)) < place
        for user, partition, place in zip(users, partitions, rank.tolist(), strict=True)
    ]
    return table.filter(pa.array(kept))
