"""The one order of all rows: (ingest time, partition, offset, row).

The ingest time is the consumer's clock at the poll that brought the message. Each commit moves
the times of the commit's rows behind every time that the table holds. So the order of the rows is
also the order of the commits and of the logs, and what a reader has not read yet comes after all
that it has read. Rows of the first version have no ingest time; they come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.schema import ADDED, ORDER, TABLE
from consumer.event.rules import FORGET

Offsets = Mapping[int, int]  # Kafka partition -> offset


@dataclass(frozen=True)
class Watermark:
    """How far a reader has read a table.

    table: Delta's id of the table, empty before the first read; stamp: ingest time of the newest
    row that was read, epoch microseconds, None before the first row that has one; logs: log ->
    partition -> offset after the newest row that was read; version: Delta version that was read to
    its end.
    """

    table: str = ""
    version: int = -1
    stamp: int | None = None
    logs: Mapping[int, Offsets] = field(default_factory=dict)

    def offsets(self, log: int) -> Offsets:
        """Partition -> offset after the newest row of a log that was read."""
        return self.logs.get(log, {})

    def begin(self, log: int, partition: int, offset: int) -> Self:
        """The same, where all of a partition of a log before `offset` was read."""
        return self._past({log: {partition: offset}}, self.stamp)

    def after(self, rows: pa.Table) -> Self:
        """The watermark after `rows`, which are in the order and past this watermark."""
        if not len(rows):
            return self
        stamp = rows["ingested_at"][-1].cast(pa.int64()).as_py()
        ends: dict[int, dict[int, int]] = {}
        for (log, partition), (_, last) in spans(rows).items():
            ends.setdefault(log, {})[partition] = last + 1
        return self._past(ends, self.stamp if stamp is None else stamp)

    def _past(self, ends: Mapping[int, Offsets], stamp: int | None) -> Self:
        logs = {log: dict(offsets) for log, offsets in self.logs.items()}
        for log, offsets in ends.items():
            of = logs.setdefault(log, {})
            for partition, offset in offsets.items():
                of[partition] = max(offset, of.get(partition, 0))
        return replace(self, stamp=stamp, logs=logs)


def spans(rows: pa.Table) -> dict[tuple[int, int], tuple[int, int]]:
    """Log and partition -> first and last offset of the rows.

    Without rows of type `forget`: an erasure is stored ahead of the rows of the same commit.
    """
    rows = rows.filter(pc.not_equal(rows["type"], FORGET))
    rows = rows.set_column(0, "log of", pc.fill_null(rows["log"], 0))
    found = rows.group_by(["log of", "kafka_partition"]).aggregate(
        [("kafka_offset", "min"), ("kafka_offset", "max")]
    )
    names = ("log of", "kafka_partition", "kafka_offset_min", "kafka_offset_max")
    columns = (found[name].to_pylist() for name in names)
    return {(log, p): (first, last) for log, p, first, last in zip(*columns, strict=True)}


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
