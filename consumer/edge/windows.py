"""Windows of the one order, so that a reader of long history never holds all of it.

They are planned by the files' statistics. What a window gives is right whatever these say; they
tell which files need not be opened, and keep a window at about WINDOW_ROWS rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.schema import TABLE

WINDOW_ROWS = 1_000_000
PIECES = 4  # at least, in a window: with larger ones it could have almost twice as many rows
LARGEST = 4.0  # times WINDOW_ROWS: a window for a reader who takes few of the rows of each
STAMP = TABLE.field("ingested_at").type
MILLI = 1_000  # microseconds, to which statistics may be rounded
PARTITIONS = 10_000  # of a topic, at most; a row of another program may say any number


class File(NamedTuple):
    """A data file and what its statistics say; None where they say nothing."""

    path: str
    rows: int
    unstamped: int  # rows without an ingest time, at most
    stamps: tuple[int, int] | None  # epoch microseconds
    partitions: tuple[int, int] | None
    offsets: tuple[int, int] | None


class Window(NamedTuple):
    """The files that can hold rows of a window, and the condition for these rows."""

    paths: list[str]
    rows: pc.Expression


def files_of(actions: pa.Table) -> list[File]:
    """The files of a table by its flattened add actions."""
    for name in ("min.ingested_at", "max.ingested_at"):
        if name in actions.column_names:
            at = actions.column_names.index(name)
            actions = actions.set_column(at, name, actions[name].cast(STAMP).cast(pa.int64()))
    return [
        File(
            row["path"],
            rows := row.get("num_records") or 0,
            rows if (nulls := row.get("null_count.ingested_at")) is None else nulls,
            _range(row, "ingested_at"),
            _range(row, "kafka_partition"),
            _range(row, "kafka_offset"),
        )
        for row in actions.to_pylist()
    ]


def partitions(files: Sequence[File]) -> range:
    """The partitions that the files can hold rows of."""
    last = max((file.partitions[1] for file in files if file.partitions), default=0)
    return range(1 + min(last, PARTITIONS - 1))


def unstamped(files: Sequence[File], past: Mapping[int, int]) -> Iterator[Window]:
    """Windows of the rows that the first version wrote, past a watermark of offsets."""
    held = [file for file in files if file.unstamped or not file.rows]
    held = [file for file in held if not _known(file, past)]
    if not held:
        return
    paths = [file.path for file in held]
    old = pc.field("ingested_at").is_null()
    partition, offset = pc.field("kafka_partition"), pc.field("kafka_offset")
    for number, first in past.items():
        old &= (partition != number) | (offset >= first)
    numbers = [file.partitions for file in held if file.partitions]
    low = min((first for first, _ in numbers), default=0)
    high = max((last for _, last in numbers), default=0)
    parts = math.ceil(sum(file.unstamped for file in held) / WINDOW_ROWS)
    if parts <= 1 or not numbers:
        yield Window(paths, old)
        return
    each = math.ceil((high - low + 1) / parts)  # partitions in a window
    cuts = math.ceil(parts / (high - low + 1))  # windows in a partition
    last = max((file.offsets[1] for file in held if file.offsets), default=0)
    for begin in range(low, high + 1, each):
        of = old & (partition >= begin) & (partition < begin + each)
        for cut in range(cuts):
            from_, to = (last + 1) * cut // cuts, (last + 1) * (cut + 1) // cuts
            span = (offset >= from_) if cut + 1 == cuts else (offset >= from_) & (offset < to)
            yield Window(paths, of & span)


def stamped(files: Sequence[File], after: int | None, share: float = 1.0) -> Iterator[Window]:
    """Windows of the rows with an ingest time behind `after`, epoch microseconds.

    For each window all files that may have rows of it are opened: larger windows take less time.

    Args:
        share: about which part of a window's rows the reader takes, more than 0, at most 1.
    """
    most = WINDOW_ROWS * min(LARGEST, 1.0 / share)
    done = -1 if after is None else after
    held = [(file, file.stamps) for file in files if file.stamps and file.stamps[1] + MILLI > done]
    pieces: list[tuple[int, float]] = []  # where a piece ends, and its rows, about
    for file, (first, last) in held:
        parts = max(1, math.ceil(PIECES * file.rows / WINDOW_ROWS))
        ends = (first + (last - first) * part // parts for part in range(1, parts + 1))
        pieces += ((end, file.rows / parts) for end in ends)
    begin, rows = done, 0.0
    pieces.sort()
    for number, (end, more) in enumerate(pieces):
        rows += more
        if number == len(pieces) - 1:
            paths = [file.path for file, (_, high) in held if high + MILLI > begin]
            yield Window(paths, behind(begin))
        elif end > begin and rows >= most:
            paths = [f.path for f, (low, high) in held if low <= end and high + MILLI > begin]
            yield Window(paths, behind(begin) & (pc.field("ingested_at") <= _stamp(end)))
            begin, rows = end, 0


def either(conditions: Sequence[pc.Expression]) -> pc.Expression:
    """Whether one of the conditions is true; there must be one."""
    return reduce(lambda a, b: a | b, conditions)


def behind(stamp: int | None) -> pc.Expression:
    """Rows that were ingested after `stamp`; all of them where it is None."""
    return pc.scalar(True) if stamp is None else pc.field("ingested_at") > _stamp(stamp)


def _known(file: File, past: Mapping[int, int]) -> bool:
    """Whether all rows of the file are before the offsets `past`."""
    if not file.partitions or not file.offsets:
        return False
    first, last = file.partitions
    return last < PARTITIONS and all(
        file.offsets[1] < past.get(p, 0) for p in range(first, last + 1)
    )


def _range(row: Mapping[str, int | None], name: str) -> tuple[int, int] | None:
    low, high = row.get(f"min.{name}"), row.get(f"max.{name}")
    return None if low is None or high is None else (low, high)


def _stamp(micros: int) -> pa.Scalar:
    return pa.scalar(micros, STAMP)
