"""Rows that no consumer has written, by another writer or by bit rot: they are left out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.event.rules import FORGET, ID_BYTES, LARGEST, TYPE_BYTES

log = logging.getLogger("edges")
NEEDED = (
    "user_id", "item_id", "interaction", "type", "timestamp", "kafka_partition", "kafka_offset",
)  # fmt: skip
_told: set[str] = set()  # places that were named in the log of this process


def only_valid(
    rows: pa.Table, uri: str, next_offset: Callable[[int, int], int | None], newest: int
) -> pa.Table:
    """The rows that a consumer can have written; others are named in the log once.

    Args:
        rows: of TABLE.
        next_offset: log, partition -> the offset up to which the table says that it holds it.
        newest: ingest time that the table says to be its newest, epoch microseconds.
    """
    forget = pc.fill_null(pc.equal(rows["type"], FORGET), False)
    sizes = {
        name: pc.fill_null(pc.binary_length(rows[name]), -1)
        for name in ("user_id", "item_id", "type")
    }
    offsets = pc.fill_null(rows["kafka_offset"], -1)
    good = pc.and_(pc.greater_equal(offsets, 0), _between(sizes["user_id"], 1, ID_BYTES))
    good = pc.and_(good, pc.or_(forget, _between(sizes["item_id"], 1, ID_BYTES)))
    good = pc.and_(good, _between(sizes["type"], 0, TYPE_BYTES))
    size = pc.fill_null(pc.less_equal(pc.abs(rows["interaction"]), LARGEST), False)
    good = pc.and_(good, size)
    for name in NEEDED:
        if rows[name].null_count:
            good = pc.and_(good, pc.is_valid(rows[name]))
    times = rows["ingested_at"].cast(pa.int64())
    stored = pc.and_(
        _stored(rows, offsets, next_offset), pc.fill_null(pc.less_equal(times, newest), True)
    )
    # A notice is stored ahead of the commit that it belongs to.
    good = pc.and_(good, pc.or_(forget, stored))
    if pc.all(good, min_count=0).as_py():
        return rows
    kept = rows.filter(good)
    if uri not in _told:
        _told.add(uri)
        bad = rows.filter(pc.invert(good)).slice(0, 1).to_pylist()[0]
        place = bad["kafka_partition"], bad["kafka_offset"]
        log.warning(
            "%d rows of the edge store %s were not written by a consumer and are left out; the "
            "first says partition %s, offset %s, interaction %s.",
            len(rows) - len(kept), uri, *place, bad["interaction"],
        )  # fmt: skip
    return kept


def _between(sizes: pa.ChunkedArray, least: int, most: int) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(sizes, least), pc.less_equal(sizes, most))


def _stored(
    rows: pa.Table, offsets: pa.ChunkedArray, next_offset: Callable[[int, int], int | None]
) -> pa.Array:
    """Whether each row's offset is before what the table says to hold of the row's partition."""
    logs = pc.fill_null(rows["log"], 0).to_numpy().astype(np.int64)
    partitions = pc.fill_null(rows["kafka_partition"], -1).to_numpy().astype(np.int64)
    places, of = np.unique((logs << 32) | (partitions & 0xFFFFFFFF), return_inverse=True)
    ends = [next_offset(int(place) >> 32, int(place) & 0xFFFFFFFF) or 0 for place in places]
    return pa.array(offsets.to_numpy() < np.array(ends, np.int64)[of])
