"""What a table holds past a watermark: read in windows of the one order, from one version."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge import foreign, windows
from consumer.edge.files import Files
from consumer.edge.logs import Logs
from consumer.edge.order import Watermark, ordered, spans
from consumer.edge.schema import TABLE
from consumer.edge.table import Replaced, Table
from consumer.edge.traces import rows_of
from consumer.event.rules import FORGET


class Shared(NamedTuple):
    """What a window has for a reader of some partitions.

    rows: those of these partitions, and all of type `forget`, in the order; others: user_id and
    kafka_partition of all other rows, no pair twice.
    """

    rows: pa.Table
    others: pa.Table


class News:
    """What a table holds past a watermark, as of the version that the table has read."""

    def __init__(self, table: Table, logs: Logs, watermark: Watermark) -> None:
        """Look what is there.

        Raises:
            Replaced: the watermark is of another table, or of a later state of this one.
            StoreError: the table cannot be read.
        """
        newest = logs.stamp()
        refuse_replaced(table, newest, watermark)
        self._logs = logs
        self._table = table
        self._files = Files(table)
        self._newest, self._version = newest, table.version
        self._log = logs.newest().number
        known = windows.partitions(self._files.all)
        self._ends = logs.offsets(self._log, {*known, *watermark.offsets(self._log)})
        self.watermark = replace(watermark, table=table.id)

    def end(self, watermark: Watermark) -> Watermark:
        """`watermark`, moved on to the end of what is there."""
        stamp = self._newest or watermark.stamp
        for partition, offset in self._ends.items():
            watermark = watermark.begin(self._log, partition, offset)
        return replace(watermark, table=self.watermark.table, version=self._version, stamp=stamp)

    def notices(self) -> pa.Table:
        """The new rows of type `forget`, in any order.

        Raises:
            StoreError: the table cannot be read.
        """
        parts = [
            self._files.read(window.paths, window.rows & (pc.field("type") == FORGET))
            for window in self._windows()
        ]
        return pa.concat_tables(parts) if parts else TABLE.empty_table()

    def read_before(self, users: Collection[str]) -> pa.Table:
        """The rows of some users that are not new, in the order.

        Raises:
            StoreError: the table cannot be read.
        """
        stamp = pc.field("ingested_at")
        before = stamp.is_null()
        if self.watermark.stamp is not None:
            before |= ~windows.behind(self.watermark.stamp)
        wanted = rows_of(users) & before
        found = self._files.read([file.path for file in self._files.all], wanted)
        return ordered(self._own(found))

    def read(self) -> Iterator[pa.Table]:
        """The new rows of TABLE in the order, a window at a time.

        Raises:
            Replaced: rows that were read before come again: the table was put back to an older
                state, and filled anew.
            StoreError: the table cannot be read.
        """
        for window in self._windows():
            rows = ordered(self._own(self._files.read(window.paths, window.rows)))
            self._refuse_known(rows)
            if len(rows):
                yield rows
            del rows  # before the next window is read

    def shared(self, inside: pc.Expression) -> Iterator[Shared]:
        """The new rows for a reader of some partitions, a window at a time.

        Args:
            inside: the condition for the rows of these partitions.

        Raises:
            Replaced, StoreError: as `read`.
        """
        for window in self._windows():
            shared = self._shared(window, inside)
            self._refuse_known(shared.rows)
            yield shared

    def shared_before(self, inside: pc.Expression, n: int) -> Iterator[pa.Table]:
        """The rows of these partitions that are not new, and all of type `forget`, in the order, a
        window at a time.

        Args:
            inside: as for `shared`.
            n: how many partitions these are, 0 where that is not known.

        Raises:
            StoreError: the table cannot be read.
        """
        share = n / max(n, len(self._ends)) if n else 1.0
        for window in self._windows_before(share):
            yield self._inside(window, inside)

    def others_before(self, inside: pc.Expression) -> Iterator[pa.Table]:
        """As `Shared.others`, window by window, of the rows that are not new; `inside` as there.

        Raises:
            StoreError: the table cannot be read.
        """
        for window in self._windows_before():
            yield self._files.users(window.paths, window.rows & ~inside)

    def rows_before(self, users: Collection[str]) -> Iterator[pa.Table]:
        """As `read_before`, a window at a time.

        Raises:
            StoreError: the table cannot be read.
        """
        wanted = rows_of(users)
        for window in self._windows_before():
            yield ordered(self._own(self._files.read(window.paths, window.rows & wanted)))

    def _shared(self, window: windows.Window, inside: pc.Expression) -> Shared:
        others = self._files.users(window.paths, window.rows & ~inside)
        return Shared(self._inside(window, inside), others)

    def _inside(self, window: windows.Window, inside: pc.Expression) -> pa.Table:
        wanted = inside | (pc.field("type") == FORGET)
        return ordered(self._own(self._files.read(window.paths, window.rows & wanted)))

    def _own(self, rows: pa.Table) -> pa.Table:
        return foreign.only_valid(rows, self._table.uri, self._logs.next_offset, self._newest)

    def _windows(self) -> Iterator[windows.Window]:
        if self.watermark.stamp is None:
            yield from windows.unstamped(self._files.all, self.watermark.offsets(0))
        yield from windows.stamped(self._files.all, self.watermark.stamp)

    def _windows_before(self, share: float = 1.0) -> Iterator[windows.Window]:
        yield from windows.unstamped(self._files.all, {})
        if self.watermark.stamp is not None:
            known = ~windows.behind(self.watermark.stamp)
            for window in windows.stamped(self._files.all, None, share):
                yield window._replace(rows=window.rows & known)

    def _refuse_known(self, rows: pa.Table) -> None:
        for (log, partition), (first, _) in spans(rows).items():
            if first < self.watermark.offsets(log).get(partition, 0):
                raise Replaced(f"the edge store {self._table.uri} was put back and filled anew")


def refuse_replaced(table: Table, newest: int, watermark: Watermark) -> None:
    """Look that a table is the one that was read up to a watermark.

    Args:
        newest: the table's newest ingest time, epoch microseconds.

    Raises:
        Replaced: it is another table, or an older state of this one.
    """
    if watermark.table not in ("", table.id):
        raise Replaced(f"the edge store {table.uri} is another one than before")
    if watermark.stamp is not None and watermark.stamp > newest:
        raise Replaced(f"the edge store {table.uri} is in an older state than before")
