"""The one order of all rows: (log, ingest time, partition, offset, row).

The ingest time is the consumer's clock at the poll that brought the message. Each commit moves
the times of the commit's rows behind every time that the table holds, so the order of the rows
is also the order of the commits: what a reader has not read yet comes after all that it has read.
Rows of the first edition have no ingest time; they come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.schema import ADDED, ORDER, TABLE
from consumer.edge.traces import FORGET


@dataclass(frozen=True)
class Watermark:
    """How far a reader has read a table.

    table: Delta's id of the table, empty before the first read; stamp: ingest time of the newest
    row that was read, epoch microseconds, None before the first row that has one; offsets:
    partition -> offset after the newest row of `log` that was read; version: Delta version that
    was read to its end.
    """

    table: str = ""
    version: int = -1
    stamp: int | None = None
    log: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)

    def begin(self, log: int, partition: int, offset: int) -> Self:
        """The same, where all of a partition of `log` before `offset` was read."""
        offsets = dict(self.offsets) if log == self.log else {}
        offsets[partition] = max(offset, offsets.get(partition, 0))
        return replace(self, log=log, offsets=offsets)

    def after(self, rows: pa.Table) -> Self:
        """The watermark after `rows`, which are in the order and past this watermark."""
        if not len(rows):
            return self
        stamp = rows["ingested_at"][-1].cast(pa.int64()).as_py()
        log = max(self.log, rows["log"][-1].as_py() or 0)
        offsets = dict(self.offsets) if log == self.log else {}
        for partition, (_, last) in spans(rows, log).items():
            offsets[partition] = max(offsets.get(partition, 0), last + 1)
        return replace(self, stamp=self.stamp if stamp is None else stamp, log=log, offsets=offsets)


def spans(rows: pa.Table, log: int) -> dict[int, tuple[int, int]]:
    """Partition -> first and last offset of the rows of `log`.

    Without rows of type `forget`: an erasure is stored ahead of the rows of the same commit.
    """
    mine = pc.equal(pc.fill_null(rows["log"], 0), log)
    rows = rows.filter(pc.and_(mine, pc.not_equal(rows["type"], FORGET)))
    found = rows.group_by("kafka_partition").aggregate(
        [("kafka_offset", "min"), ("kafka_offset", "max")]
    )
    names = ("kafka_partition", "kafka_offset_min", "kafka_offset_max")
    columns = (found[name].to_pylist() for name in names)
    return {partition: (first, last) for partition, first, last in zip(*columns, strict=True)}


def ordered(rows: pa.Table) -> pa.Table:
    """Rows of TABLE in the order."""
    columns = [
        pc.fill_null(rows[name].cast(pa.int64()), -1 if name == "ingested_at" else 0).to_numpy()
        for name in reversed(ORDER)
    ]
    return rows.take(pa.array(np.lexsort(columns)))


def taken(rows: pa.Table, at: int) -> pa.Table:
    """Rows of TABLE, all taken from Kafka at the same time; their log is not known yet.

    Args:
        rows: of SCHEMA, in the order of the messages.
        at: epoch microseconds.
    """
    n = len(rows)
    partitions, offsets = rows["kafka_partition"].to_numpy(), rows["kafka_offset"].to_numpy()
    first = np.ones(n, np.bool_)  # of a message
    first[1:] = (partitions[1:] != partitions[:-1]) | (offsets[1:] != offsets[:-1])
    begin = np.maximum.accumulate(np.where(first, np.arange(n), 0))
    added = [
        pa.nulls(n, pa.int32()),
        pa.array(np.full(n, at)).cast(ADDED.field("ingested_at").type),
        pa.array((np.arange(n) - begin).astype(np.int32)),
    ]
    return pa.table([*rows.columns, *added], schema=TABLE)


def stamped(rows: pa.Table, log: int, last: int) -> tuple[pa.Table, int]:
    """Rows of TABLE with their log and with ingest times behind `last`, in the same order.

    Args:
        last: the newest ingest time of the table, epoch microseconds.

    Returns:
        The rows, and the newest ingest time then.
    """
    if not len(rows):
        return rows, last
    stamps, polls = np.unique(rows["ingested_at"].cast(pa.int64()).to_numpy(), return_inverse=True)
    number = np.arange(len(stamps))
    stamps = np.maximum.accumulate(np.maximum(stamps, last + 1) - number) + number
    columns = {
        "log": pa.array(np.full(len(rows), log, np.int32)),
        "ingested_at": pa.array(stamps[polls]).cast(ADDED.field("ingested_at").type),
    }
    for name, column in columns.items():
        rows = rows.set_column(TABLE.get_field_index(name), TABLE.field(name), column)
    return rows, int(stamps[-1])
