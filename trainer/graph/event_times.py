"""When the events of rows of the edge store happened."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from trainer.graph.arrays import Int64s


def happened_at(rows: pa.Table) -> Int64s:
    """Epoch milliseconds of each row's event, int64 [rows].

    No event has happened after it was taken, whatever the clock of a client said: an event in the
    future would age all others.
    """
    return np.minimum(_milliseconds(rows["timestamp"]), _taken_at(rows))


def _taken_at(rows: pa.Table) -> Int64s | int:
    now = int(time.time() * 1000)
    if "ingested_at" not in rows.schema.names:
        return now
    taken = rows["ingested_at"].cast(pa.int64()).fill_null(now * 1000)
    return np.minimum(_milliseconds(taken), now)


def _milliseconds(times: pa.ChunkedArray) -> Int64s:
    made: Int64s = times.cast(pa.int64()).to_numpy() // 1000
    return made
