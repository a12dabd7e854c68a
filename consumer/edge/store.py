"""The edge store: a Delta Lake table in which every event is a row, exactly once.

A commit carries rows and, for each Kafka partition in it, the offset to go on from. Both land
or neither does, so the offsets of the store, not Kafka's committed ones, say what is stored.

    append     rows and offsets in one commit; a second writer of a partition is refused
    since      rows past a watermark, for readers that grow with the store
    erase      users' rows out of the table and their bytes out of its files
    tidy       many small files into few, old rows and old files away, beside readers and writers
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from pyarrow.dataset import Scanner, dataset
from pyarrow.fs import FileSelector

from consumer.edge.traces import FORGET, digest
from process.errors import StreamGCNError
from process.outage import Outage
from process.shutdown import Stopped

T = TypeVar("T")
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
KEEP_REPLACED_HOURS = 1  # for readers that still hold an older version
CONFIGURATION = {
    # Statistics of ids would put users' ids into the log, where no erasure reaches them.
    "delta.dataSkippingStatsColumns": "timestamp,kafka_partition,kafka_offset",
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 2 minutes",  # each commit lists what is there
    "delta.deletedFileRetentionDuration": f"interval {2 * KEEP_REPLACED_HOURS} hours",
}
FILE_BYTES = 32 * 1024 * 1024  # a file that has grown to this is not merged again
ERASE_TRIES = 20  # against other writers' commits

# Two cleanings of the log at once trip over each other, so `tidy` alone does it.
NO_CLEANUP = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)

Offsets = Mapping[int, int]  # Kafka partition -> next offset


class StoreError(StreamGCNError):
    """The edge store cannot be read or written now; the cause is in the text."""


class Conflict(StoreError):
    """Another process changed the same files in the meantime."""


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
        with self._errors():
            self._table = DeltaTable.create(
                uri, SCHEMA, mode="ignore", name="edges", configuration=CONFIGURATION
            )

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
        self._check_fence(first)
        with self._errors():
            write_deltalake(
                self._table,
                rows,
                mode="append",
                commit_properties=self._transactions(after),
                post_commithook_properties=NO_CLEANUP,
            )

    def since(self, watermark: Offsets) -> pa.Table:
        """Rows of SCHEMA at or past the watermark, ordered by partition and offset.

        Raises:
            StoreError: the store cannot be read.
        """
        rows = self._twice(lambda: self._past(watermark).to_table())
        self._read = self.version
        return rows.sort_by([("kafka_partition", "ascending"), ("kafka_offset", "ascending")])

    def count(self) -> int:
        """Number of rows, from the files' statistics."""
        self._refresh()
        return int(self._table.count())

    def of_user(self, user: str, before: Offsets) -> int:
        """Number of the user's rows that are before the offsets `before`.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        return len(self._of_users([user], before))

    def files_with(self, user: str, before: Offsets) -> list[str]:
        """Files in which there are rows of the user from before the offsets `before`.

        Every Parquet file in the place, replaced ones and those of killed writers too. The log
        holds no ids: of them it has no statistics, and an erasure names a digest.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = (pc.field("user_id") == user) & _before(before)
        found = []
        with self._errors():
            self._refresh()
            files = self._table.to_pyarrow_dataset().filesystem
            for file in files.get_file_info(FileSelector("")):
                if not file.path.endswith(".parquet"):
                    continue
                try:
                    if dataset(file.path, filesystem=files).count_rows(filter=wanted):
                        found.append(file.path)
                except FileNotFoundError:
                    continue  # deleted this moment
        return found

    def erase(self, forgets: pa.Table, first: Offsets) -> int:
        """Take users' rows out of the partitions in which they are forgotten, and their bytes.

        A row of type `forget` takes their place where there was any, with the user's digest for
        an id, so that readers learn of it. To repeat an erasure does no harm.

        Args:
            forgets: rows of SCHEMA of type `forget`, the user_id as it was sent; everything stored
                of their partitions is from before them.
            first: the stored offsets of these partitions, as for `append`.

        Returns:
            The number of rows erased.

        Raises:
            Fenced: the store has moved on without this consumer; nothing was written.
            StoreError: the store cannot be written now; what was erased will be found erased.
        """
        users, partitions = forgets["user_id"].to_pylist(), forgets["kafka_partition"].to_pylist()
        for left in reversed(range(ERASE_TRIES)):
            self._refresh()
            self._check_fence(first)
            held = self._of_users(set(users), first)
            pairs = {tuple(row.values()) for row in held.to_pylist()}
            hit = [pair in pairs for pair in zip(users, partitions, strict=True)]
            if not pairs:
                break
            notices = _notices(forgets.filter(pa.array(hit)))
            try:
                with self._errors():
                    write_deltalake(
                        self._table,
                        notices,
                        mode="overwrite",
                        predicate=_replaced_by(notices),
                        commit_properties=self._transactions(first),
                        post_commithook_properties=NO_CLEANUP,
                    )
                break
            except Conflict:
                if not left:
                    raise
        self._vacuum(hours=0, full=False)
        return len(held)

    def tidy(self, retention_days: float | None = None) -> None:
        """Merge small files, drop rows and files that are too old, shorten the log.

        Files replaced over an hour ago go, and those that a killed writer has left. With
        `retention_days`, rows with an older timestamp go; those that say what was taken back or
        forgotten stay, or what they are about could come back.

        Raises:
            Conflict: another process is at it.
            StoreError: the store cannot be written.
        """
        self._refresh()
        with self._errors():
            if retention_days is not None:
                oldest = datetime.now(UTC) - timedelta(days=retention_days)
                self._table.delete(
                    f"timestamp < '{oldest.isoformat()}' AND type NOT IN ('remove', '{FORGET}')"
                )
            self._table.optimize.compact(target_size=FILE_BYTES)
            self._table.create_checkpoint()
            self._table.cleanup_metadata()
        self._vacuum(KEEP_REPLACED_HOURS, full=True)

    def _vacuum(self, hours: int, full: bool) -> None:
        """Delete files replaced `hours` ago; if `full`, also those that no version ever had.

        Only an hour's age tells the latter from a file that is being written.
        """
        with self._errors():
            self._table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=full)

    def _of_users(self, users: Collection[str], before: Offsets) -> pa.Table:
        """user_id and kafka_partition of the users' rows before the offsets `before`."""
        wanted = pc.field("user_id").isin(list(users)) & _before(before)
        columns = ["user_id", "kafka_partition"]
        return self._twice(
            lambda: self._table.to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
        )

    def _check_fence(self, first: Offsets) -> None:
        # The commit is checked against every version after the one read here, so no writer of
        # the same partition can slip in between this look and the commit.
        for partition, offset in first.items():
            stored = self._next(partition)
            if stored is not None and stored != offset:
                raise Fenced(f"partition {partition} is stored up to {stored}, not {offset}")

    def _transactions(self, after: Offsets) -> CommitProperties:
        return CommitProperties(
            app_transactions=[Transaction(self._app(p), offset) for p, offset in after.items()]
        )

    def _past(self, watermark: Offsets) -> Scanner:
        """A scan of what is at or past the watermark; the files' statistics spare most of them."""
        self._refresh()
        known = pc.field("kafka_partition").isin(list(watermark))
        past = [
            (pc.field("kafka_partition") == partition) & (pc.field("kafka_offset") >= offset)
            for partition, offset in watermark.items()
        ]
        wanted = _any([~known, *past]) if past else None
        return self._table.to_pyarrow_dataset().scanner(filter=wanted)

    def _refresh(self) -> None:
        """Read the newest version; from its start where the log's older part is gone."""
        with self._errors():
            try:
                self._table.update_incremental()
            except (DeltaError, OSError):
                self._table = DeltaTable(self.uri)

    def _twice(self, read: Callable[[], T]) -> T:
        """What `read` returns; an erasure may just have deleted the files of the version it had."""
        try:
            with self._errors():
                return read()
        except StoreError:
            self._refresh()
            with self._errors():
                return read()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the library's errors into this file's."""
        try:
            yield
        except CommitFailedError as error:
            if "oncurrent transaction" in str(error):
                raise Fenced(str(error)) from error
            raise Conflict(f"edge store {self.uri}: {error}") from error
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StoreError(f"edge store {self.uri}: {error}") from error

    def _next(self, partition: int) -> int | None:
        offset: int | None = self._table.transaction_version(self._app(partition))
        return offset

    def _app(self, partition: int) -> str:
        return f"{self._topic}/{partition}"


def _any(conditions: Iterable[pc.Expression]) -> pc.Expression:
    return reduce(lambda a, b: a | b, conditions)


def _before(offsets: Offsets) -> pc.Expression:
    return _any(
        (pc.field("kafka_partition") == partition) & (pc.field("kafka_offset") < offset)
        for partition, offset in offsets.items()
    )


def _notices(forgets: pa.Table) -> pa.Table:
    """Rows of type `forget` with the digests of users for their ids."""
    digests = [digest(user) for user in forgets["user_id"].to_pylist()]
    return forgets.set_column(0, SCHEMA.field("user_id"), pa.array(digests, pa.string()))


def _replaced_by(notices: pa.Table) -> str:
    """SQL of the rows that make way for the notices; ids appear in it as digests alone."""
    by_partition: dict[int, tuple[list[str], list[str]]] = {}
    for row in notices.to_pylist():
        digests, offsets = by_partition.setdefault(row["kafka_partition"], ([], []))
        digests.append(f"'{row['user_id']}'")
        offsets.append(str(row["kafka_offset"]))
    return " OR ".join(
        f"(kafka_partition = {partition} AND encode(sha256(user_id), 'hex') IN "
        f"({', '.join(digests)})) OR (kafka_partition = {partition} AND type = '{FORGET}' AND "
        f"user_id IN ({', '.join(digests)}) AND kafka_offset IN ({', '.join(offsets)}))"
        for partition, (digests, offsets) in by_partition.items()
    )


def wait_for_store(uri: str, topic: str, stop: threading.Event, log: logging.Logger) -> EdgeStore:
    """Open the edge store, waiting for its place to be there.

    Raises:
        Stopped: told to stop before it was.
    """
    outage = Outage(log, "The edge store cannot be opened", "The edge store is open")
    while True:
        try:
            store = EdgeStore(uri, topic)
        except StoreError as error:
            if stop.wait(outage.failed(error)):
                raise Stopped("waiting for the edge store") from None
            continue
        outage.worked()
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
