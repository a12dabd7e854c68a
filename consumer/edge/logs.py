"""Which topic a table belongs to, and which logs of this topic it holds.

A topic that was deleted and created anew is another log: Kafka gives it another id, and counts its
offsets from 0 again. The logs are numbered in the order in which the table came to know them, by
transactions of the table itself:

    <topic>/log/<topic id>     the log's number
    <topic>/logs               how many there are; two consumers that add one at once conflict
    <topic>/<partition>        next offset of log 0, as in the first version
    <topic>/<log>/<partition>  next offset of a later log
    <topic>/order              the newest ingest time, epoch microseconds
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple
from uuid import uuid4

import pyarrow.parquet as pq
from deltalake import Field, Schema
from pyarrow.fs import FileSelector

from consumer.edge.schema import ADDED, CONFIGURATION, TOPIC
from consumer.edge.table import NO_CLEANUP, Table
from process.settings import SettingsError


class WrongTopic(SettingsError):
    """The edge store belongs to another topic."""


class Log(NamedTuple):
    """A log of the topic in one table: Delta's id of the table, and the log's number there."""

    table: str
    number: int


class Logs:
    """The logs of one topic in one table, as of the version that the table has read."""

    def __init__(self, table: Table, topic: str) -> None:
        """Look whether the table is the topic's.

        Raises:
            WrongTopic: it holds rows of another topic.
            StoreError: it cannot be read.
        """
        self._table = table
        self._topic = topic
        self.check()

    def check(self) -> None:
        """Look again, where the place may hold another table.

        Raises:
            WrongTopic: as at first.
        """
        owner = self._table.delta.metadata().configuration.get(TOPIC)
        if owner is None and self._count() is None:
            topics = _topics(self._table)  # of the first version, which did not write it down
            owner = self._topic if not topics or self._topic in topics else topics[0]
        if owner not in (None, self._topic):
            raise WrongTopic(
                f"EDGE_STORE={self._table.uri} holds the events of topic {owner}, and KAFKA_TOPIC "
                f"is {self._topic}: an edge store belongs to one topic. Set KAFKA_TOPIC={owner}, "
                "or point EDGE_STORE at another place"
            )

    def newest(self) -> Log:
        """The log that is written to; 0 in a table that knows none yet."""
        return Log(self._table.id, (self._count() or 1) - 1)

    def number(self, topic_id: str | None) -> int | None:
        """The log of a topic id, None for one that the table does not know.

        Args:
            topic_id: None where the broker gives topics no id; it is then the newest log.
        """
        count = self._count()
        if topic_id is None:
            return None if count is None else count - 1
        return self._table.transaction(f"{self._topic}/log/{topic_id}")

    def next_offset(self, log: int, partition: int) -> int | None:
        """Offset to go on from, None if nothing of the partition is stored."""
        return self._table.transaction(self.app(log, partition))

    def offsets(self, log: int, partitions: Iterable[int]) -> dict[int, int]:
        """The next offsets of those partitions of which something is stored."""
        found = {partition: self.next_offset(log, partition) for partition in partitions}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def stamp(self) -> int:
        """The newest ingest time, epoch microseconds; 0 before the first."""
        return self._table.transaction(self.order) or 0

    @property
    def order(self) -> str:
        """Application id of the newest ingest time."""
        return f"{self._topic}/order"

    def app(self, log: int, partition: int) -> str:
        """Application id of a partition's next offset."""
        return f"{self._topic}/{log}/{partition}" if log else f"{self._topic}/{partition}"

    def is_known(self) -> bool:
        """Whether the table knows any log; one of the first version does not."""
        return self._count() is not None

    def begin(self, topic_id: str | None, another: bool) -> int:
        """Add a log, and return its number.

        Args:
            another: whether what a table of the first version holds is of another log.

        Raises:
            Conflict: another consumer was quicker; look again.
            StoreError: the table cannot be written.
        """
        self._take_over()
        count = self._count()
        number = (1 if another else 0) if count is None else count
        topic_id = topic_id or f"unnamed-{uuid4()}"
        self._table.append(
            [],
            {f"{self._topic}/log/{topic_id}": number, f"{self._topic}/logs": number + 1},
        )
        self._table.refresh()
        return number

    def _count(self) -> int | None:
        return self._table.transaction(f"{self._topic}/logs")

    def _take_over(self) -> None:
        """Give a table of the first version the columns and properties that it lacks."""
        table = self._table.delta
        with self._table.errors():
            names = {field.name for field in table.schema().fields}
            lacking = [f for f in Schema.from_arrow(ADDED).fields if f.name not in names]
            if lacking:
                fields = [Field.from_json(field.to_json()) for field in lacking]
                table.alter.add_columns(fields, post_commithook_properties=NO_CLEANUP)
            if table.metadata().configuration.get(TOPIC) is None:
                table.alter.set_table_properties(
                    {**CONFIGURATION, TOPIC: self._topic},
                    raise_if_not_exists=False,
                    post_commithook_properties=NO_CLEANUP,
                )


def _topics(table: Table) -> list[str]:
    """Topics that the transactions in the table's log name; the library does not list them."""
    apps: set[str] = set()
    files = table.place()
    with table.errors():
        for file in files.get_file_info(FileSelector("_delta_log")):
            if file.path.endswith(".json"):
                with files.open_input_file(file.path) as source:
                    lines = source.read().splitlines()
                found = (json.loads(line).get("txn") for line in lines if line)
                apps |= {txn["appId"] for txn in found if txn}
            elif file.path.endswith(".checkpoint.parquet"):
                with files.open_input_file(file.path) as source:
                    rows = pq.read_table(source, columns=["txn"])["txn"].to_pylist()
                apps |= {row["appId"] for row in rows if row}
    return sorted({app.split("/")[0] for app in apps if "/" in app})
