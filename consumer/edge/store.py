"""The edge store: a Delta Lake table in which every event of one topic is a row, exactly once.

A commit carries rows and, for each Kafka partition in it, the offset to go on from. Both land
or neither does, so the offsets of the store, not Kafka's committed ones, say what is stored.

    append     rows and offsets in one commit; a second writer of a partition is refused
    news       what is past a watermark, in windows, for readers that grow with the store
    erase      users' rows out of the table and their bytes out of its files
    tidy       many small files into few, old rows and old files away, beside readers and writers

This file is longer than 250 lines because all that others ask of the edge store is one class, and
each method says what it promises. How it is done stands in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from consumer import path
from consumer.edge import erase, tidy, traces, windows
from consumer.edge.conflicts import Conflicts
from consumer.edge.files import Files
from consumer.edge.logs import Log, Logs, WrongTopic
from consumer.edge.new_file import NewFile
from consumer.edge.news import News, refuse_replaced
from consumer.edge.order import Watermark, stamped
from consumer.edge.schema import CONFIGURATION, TABLE, TOPIC
from consumer.edge.table import (
    Conflict,
    Fenced,
    Overtaken,
    Replaced,
    StoreError,
    StoreMissing,
    StoreRefused,
    Table,
    errors,
)
from consumer.event.rules import HERE

__all__ = [
    "Conflict",
    "EdgeStore",
    "Fenced",
    "Log",
    "Replaced",
    "StoreError",
    "StoreMissing",
    "StoreRefused",
    "Watermark",
    "WrongTopic",
]

Offsets = Mapping[int, int]  # Kafka partition -> next offset


class EdgeStore:
    """The rows of one topic. Not safe for several threads; open one for each."""

    def __init__(self, uri: str, topic: str) -> None:
        """Open the table at `uri` (a path or an object store's URI).

        Raises:
            SettingsError: the place cannot hold a table, the object store does not let this process
                in (StoreRefused), or the table belongs to another topic.
            StoreMissing: there is no table.
            StoreError: the place cannot be reached or read.
        """
        path.check(uri)
        self.uri = uri
        self._table = Table(uri)
        self._logs = Logs(self._table, topic)
        self._conflicts = Conflicts()

    @classmethod
    def begin(cls, uri: str, topic: str) -> EdgeStore:
        """Open the table at `uri`, and create it empty where there is none.

        Raises:
            SettingsError, StoreError: as the constructor, or the place cannot be written.
        """
        path.check(uri)
        try:
            return cls(uri, topic)
        except StoreMissing:
            with errors(uri):
                DeltaTable.create(
                    uri,
                    TABLE,
                    mode="ignore",
                    name="edges",
                    configuration=CONFIGURATION | {TOPIC: topic},
                    raise_if_key_not_exists=False,
                    storage_options=path.options(uri),
                )
            return cls(uri, topic)

    @property
    def id(self) -> str:
        """Delta's id of the table; another one is another store."""
        return self._table.id

    @property
    def version(self) -> int:
        """Delta version that was read last."""
        return self._table.version

    @property
    def conflicts(self) -> int:
        """Commits of this handle that another writer's was before; each was tried again."""
        return self._conflicts.count

    def changed(self, watermark: Watermark) -> bool:
        """Whether there is a version that was not read to its end.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        now = self.id, self.version, self._logs.stamp()
        return now != (watermark.table, watermark.version, watermark.stamp or 0)

    def look(self, watermark: Watermark) -> None:
        """Look that the store is there, and the one that was read up to the watermark.

        Raises:
            Replaced: it is another one, or in an older state.
            StoreError: it cannot be read.
        """
        self._refresh()
        refuse_replaced(self._table, self._logs.stamp(), watermark)

    def newest(self) -> Log:
        """The log that is written to.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        return self._logs.newest()

    def log(self, topic_id: str | None) -> Log | None:
        """The log of a topic id, None for one that the store does not know.

        Args:
            topic_id: None where the broker gives topics no id; it is then the newest log.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        number = self._logs.number(topic_id)
        return None if number is None else Log(self.id, number)

    def before_logs(self) -> dict[int, int]:
        """The next offsets of what was stored before the store knew logs; none if it knows any.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        if self._logs.is_known():
            return {}
        return self._logs.offsets(0, windows.partitions(Files(self._table).all))

    def begin_log(self, topic_id: str | None, known: Log | None, another: bool = False) -> Log:
        """Add a log, whose events come after all that is stored.

        Args:
            known: the log of this topic id that the caller knows. Where the store now has a later
                one, another consumer was quicker, and that log is returned.
            another: whether what a store of the first version holds is of another log than this.

        Raises:
            StoreError: the store cannot be written.
        """

        def begin() -> Log:
            found = self.log(topic_id)
            if found is not None and found != known:
                return found
            return Log(self.id, self._logs.begin(topic_id, another))

        return self._conflicts.try_again(begin, Conflict)

    def next_offset(self, partition: int, log: Log | None = None) -> int | None:
        """Kafka offset to go on from in `partition`, None if nothing of it is stored.

        Args:
            log: the newest one if None.

        Raises:
            StoreError: the store cannot be read.
        """
        return self.offsets([partition], log).get(partition)

    def offsets(self, partitions: list[int], log: Log | None = None) -> dict[int, int]:
        """The next offsets of those partitions of a log of which something is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        return self._logs.offsets((log or self._logs.newest()).number, partitions)

    def append(
        self, rows: pa.Table, first: Mapping[int, int | None], after: Offsets, log: Log
    ) -> None:
        """Commit rows and offsets together.

        Args:
            rows: of TABLE (order.taken), everything from offset `first` up to and without `after`.
            first: partition -> offset that the rows begin at, which must be the stored one; None
                where nothing of it must be stored.
            after: partition -> offset to go on from.
            log: that the rows are of.

        Raises:
            Fenced: the store has moved on without this consumer; nothing was written.
            StoreError: the store cannot be written now; if the commit came all the same, the next
                one is fenced.
        """
        file = NewFile(self._table.table_uri)

        def commit() -> None:
            self._refresh()
            if file.was_put and self._table.holds(file.name):
                return  # the commit had come, and the answer to it was lost
            self._check_fence(first, log)
            # The commit is checked against every version after the one read here. So no writer of
            # the same partition can slip in between, and no ingest time is behind another commit's.
            made, stamp = stamped(rows, log.number, self._logs.stamp())
            with errors(self.uri):
                files = [file.put(made)] if len(made) else []
            self._table.append(files, self._transactions(after, log, stamp))

        try:
            self._conflicts.try_again(commit)
        except (Fenced, Overtaken):
            if file.was_put:
                self._refresh()  # the last commit may have come too, and the answer have been lost
                if not self._table.holds(file.name):
                    file.take_back()
            raise

    def news(self, watermark: Watermark) -> News:
        """What is past the watermark, of the version that is there now.

        Raises:
            Replaced: the watermark is of another table, or of a later state of this one.
            StoreError: the store cannot be read.
        """
        self._refresh()
        return News(self._table, self._logs, watermark)

    def count(self) -> int:
        """Number of rows, from the files' statistics.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        with self._table.errors():
            return int(self._table.delta.count())

    def of_user(self, user: str, before: Offsets, log: Log | None = None) -> int:
        """Number of the user's rows in other logs, and in `log` before the offsets `before`.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        number = (log or self._logs.newest()).number
        return len(erase.of_users(self._table, [user], number, before))

    def rows_of(self, user: str) -> pa.Table:
        """All rows of a user, of TABLE, in any order.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        files = Files(self._table)
        return files.read([file.path for file in files.all], traces.rows_of([user]))

    def files_with(self, user: str, before: Offsets, log: Log | None = None) -> list[str]:
        """Files in which there are rows of the user, as `of_user`; replaced files too.

        Raises:
            StoreError: the store cannot be read.
        """
        self._refresh()
        number = (log or self._logs.newest()).number
        return erase.files_with(self._table, user, number, before)

    def erase(self, forgets: pa.Table, first: Mapping[int, int | None], log: Log) -> int:
        """Take users' rows out, and their bytes.

        A `forget` ends all that is stored; one with HERE for an item the user's rows in its own
        partition and in all other logs. A row of type `forget` takes the rows'
        place where there was any, with the user's digest for an id, so that readers learn of it.
        Each commit erases some of the users.
        To repeat an erasure does no harm.

        Args:
            forgets: rows of type `forget`, the user_id as it was sent; everything stored of their
                partitions is from before them.
            first, log: as for `append`.

        Returns:
            The number of rows erased.

        Raises:
            Fenced: the store has moved on without this consumer; nothing was written.
            StoreError: the store cannot be written now; what was erased will be found erased.
        """
        users = set(forgets["user_id"].to_pylist())
        wide = pc.not_equal(forgets["item_id"], HERE)
        everywhere = set(forgets["user_id"].filter(wide).to_pylist())
        stored = {partition: offset or 0 for partition, offset in first.items()}
        offsets = {p: offset for p, offset in first.items() if offset is not None}

        def commit() -> tuple[int, int]:
            self._refresh()
            self._check_fence(first, log)
            held = erase.of_users(self._table, users, log.number, stored, everywhere)
            notices = erase.notices(forgets, held, log.number)
            made, stamp = stamped(notices.slice(0, erase.TOGETHER), log.number, self._logs.stamp())
            if len(made):
                self._table.overwrite(
                    made,
                    erase.replaced_by(made, log.number),
                    self._transactions(offsets, log, stamp),
                )
            return len(held), len(notices) - len(made)

        erased, left = 0, 1
        while left:
            held, left = self._conflicts.try_again(commit, Conflict)
            erased = max(erased, held)
        tidy.vacuum(self._table, hours=0, full=False)
        return erased

    def tidy(self, retention_days: float | None = None) -> int:
        """Merge small files, drop rows and files that are too old, shorten the log.

        Files replaced over an hour ago go, and those that a killed writer has left. With
        `retention_days`, rows with an older timestamp go; those that say what was taken back or
        forgotten stay, or what they are about could come back.

        Returns:
            The number of rows that `retention_days` took.

        Raises:
            Conflict: another process is at it.
            StoreError: the store cannot be written.
        """
        self._refresh()
        return tidy.tidy(self._table, retention_days)

    def _refresh(self) -> None:
        """Open the newest version; of another table, if the place holds another one by now."""
        known = self.id
        self._table.refresh()
        if self.id != known:
            self._logs.check()

    def _check_fence(self, first: Mapping[int, int | None], log: Log) -> None:
        if log.table != self.id:
            raise Fenced("the edge store is another table than before")
        for partition, offset in first.items():
            stored = self._logs.next_offset(log.number, partition)
            if (stored or 0) != (offset or 0):
                raise Fenced(f"partition {partition} is stored up to {stored}, not {offset}")

    def _transactions(self, after: Offsets, log: Log, stamp: int) -> dict[str, int]:
        made = {self._logs.app(log.number, p): offset for p, offset in after.items()}
        return made | {self._logs.order: stamp}
