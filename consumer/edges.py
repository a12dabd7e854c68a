"""The edge store: a Delta Lake table in which every event is a row, exactly once.

A commit carries rows and, for each Kafka partition in it, the offset to go on from. Both land
or neither does, so the offsets of the store, not Kafka's committed ones, say what is stored.

    append     rows and offsets in one commit; a second writer of a partition is refused
    since      rows past a watermark, for readers that grow with the store
    compact    many small files into few, beside readers and writers
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pyarrow.dataset import Scanner

from consumer.errors import StreamGCNError

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("interaction", pa.float64(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
    ]
)
KEEP_REPLACED_FILES = timedelta(hours=1)  # for readers that still hold an older version

Offsets = Mapping[int, int]  # Kafka partition -> next offset


class StoreError(StreamGCNError):
    """The edge store cannot be read or written now; the cause is in the text."""


class Fenced(StreamGCNError):
    """Another consumer has moved a partition on: drop what is buffered, read the offsets again."""


class EdgeStore:
    """The rows of one topic. Not safe for several threads; open one for each."""

    def __init__(self, uri: str, topic: str) -> None:
        """Open the table at `uri` (a path or an object store's URI), or create it empty.

        Raises:
            StoreError: the place cannot be reached or written.
        """
        self.uri = uri
        self._topic = topic
        self._read = -1  # version that `since` gave out last
        try:
            self._table = DeltaTable.create(uri, SCHEMA, mode="ignore", name="edges")
        except (DeltaError, OSError) as error:
            raise StoreError(f"edge store {uri}: {error}") from error

    @property
    def version(self) -> int:
        """Delta version that was read last."""
        version: int = self._table.version()
        return version

    def changed(self) -> bool:
        """Whether there is a version that `since` has not read.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        return self.version != self._read

    def next_offset(self, partition: int) -> int | None:
        """Kafka offset to go on from in `partition`, None if nothing of it is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        return self._next(partition)

    def append(self, rows: pa.Table, first: Offsets, after: Offsets) -> None:
        """Commit rows and offsets together.

        Args:
            rows: of SCHEMA, everything from offset `first` up to and without `after`.
            first: partition -> offset that the rows begin at, which must be the stored one.
            after: partition -> offset to go on from.

        Raises:
            Fenced: the store has moved on without this consumer; nothing was written.
            StoreError: the store cannot be written now; nothing was written.
        """
        self._refresh()
        # The commit is checked against every version after the one read here, so no writer of
        # the same partition can slip in between this look and the commit.
        for partition, offset in first.items():
            stored = self._next(partition)
            if stored is not None and stored != offset:
                raise Fenced(f"partition {partition} is stored up to {stored}, not {offset}")
        transactions = [Transaction(self._app(p), offset) for p, offset in after.items()]
        try:
            write_deltalake(
                self._table,
                rows,
                mode="append",
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except CommitFailedError as error:
            if "oncurrent transaction" in str(error):
                raise Fenced(str(error)) from error
            raise StoreError(f"edge store {self.uri}: {error}") from error
        except (DeltaError, OSError) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error

    def since(self, watermark: Offsets) -> pa.Table:
        """Rows of SCHEMA at or past the watermark, ordered by partition and offset.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            rows = self._past(watermark).to_table()
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error
        self._read = self.version
        return rows.sort_by([("kafka_partition", "ascending"), ("kafka_offset", "ascending")])

    def ids_since(self, watermark: Offsets) -> Iterator[pa.RecordBatch]:
        """User, item, partition and offset of the rows at or past the watermark, in any order.

        Raises:
            StoreError: the store cannot be read.
        """
        columns = ["user_id", "item_id", "kafka_partition", "kafka_offset"]
        try:
            yield from self._past(watermark, columns).to_batches()
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error

    def count(self) -> int:
        """Number of rows, from the files' statistics."""
        self._refresh()
        return int(self._table.count())

    def compact(self) -> None:
        """Merge small files, write a checkpoint, and delete files replaced over an hour ago.

        Raises:
            StoreError: another compaction was quicker, or the store cannot be written.
        """
        try:
            self._refresh()
            self._table.optimize.compact()
            self._table.create_checkpoint()
            self._table.vacuum(
                retention_hours=int(KEEP_REPLACED_FILES.total_seconds() // 3600),
                dry_run=False,
                enforce_retention_duration=False,
            )
        except (DeltaError, OSError) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error

    def _past(self, watermark: Offsets, columns: list[str] | None = None) -> Scanner:
        """A scan of what is at or past the watermark; the files' statistics spare most of them."""
        self._refresh()
        known = pc.field("kafka_partition").isin(list(watermark))
        past = [
            (pc.field("kafka_partition") == partition) & (pc.field("kafka_offset") >= offset)
            for partition, offset in watermark.items()
        ]
        wanted = reduce(lambda a, b: a | b, past, ~known) if past else None
        return self._table.to_pyarrow_dataset().scanner(columns=columns, filter=wanted)

    def _refresh(self) -> None:
        try:
            self._table.update_incremental()
        except (DeltaError, OSError) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error

    def _next(self, partition: int) -> int | None:
        offset: int | None = self._table.transaction_version(self._app(partition))
        return offset

    def _app(self, partition: int) -> str:
        return f"{self._topic}/{partition}"


def wait_for_store(uri: str, topic: str, stop: threading.Event, log: logging.Logger) -> EdgeStore:
    """Open the edge store, waiting for its place to be there.

    Raises:
        StoreError: told to stop before it was.
    """
    since = 0.0
    while True:
        try:
            store = EdgeStore(uri, topic)
        except StoreError as error:
            if stop.is_set():
                raise
            if not since:
                since = time.time()
                log.warning("%s; waiting for it.", error)
            stop.wait(1.0)
            continue
        if since:
            log.info("The edge store is there after %.0f s.", time.time() - since)
        return store


def watermark(rows: pa.Table, before: Offsets | None = None) -> dict[int, int]:
    """Partition -> offset after the newest of `rows`, on top of the watermark `before`."""
    newest = rows.group_by("kafka_partition").aggregate([("kafka_offset", "max")]).to_pydict()
    after = dict(before or {})
    for partition, offset in zip(
        newest["kafka_partition"], newest["kafka_offset_max"], strict=True
    ):
        after[partition] = max(after.get(partition, 0), offset + 1)
    return after
