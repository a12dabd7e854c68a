"""Rows that were never in an edge store -> the graph: of a pandas DataFrame, or of files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.event.errors import EventError
from consumer.event.rules import FORGET, NAMES, check
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing


def from_frame(frame: Any, weighing: Weighing | None = None) -> InteractionGraph:
    """The graph of a DataFrame's rows, in the order of their times, else in their own order.

    Args:
        frame: columns named as the fields of an event, of which user_id and item_id (strings or
            integers) must be there; others are not looked at.

    Raises:
        EventError: a column is missing or of a wrong type, or a row is no event; the text names the
            first such row, counted from 0.
    """
    names = [name for name in frame.columns if name in NAMES]
    given = pa.Table.from_pandas(frame[names], preserve_index=False)
    checked = check(given.combine_chunks())
    if checked.bad:
        (row, reason), count = checked.bad[0], len(checked.bad)
        raise EventError(f"{count} of {len(frame)} rows are no events; row {row}: {reason}")
    times = checked.table["timestamp"].combine_chunks().fill_null(0)
    order = pa.array(np.argsort(times.to_numpy(), kind="stable"))
    moments = pc.multiply(times, 1000).cast(pa.timestamp("us", "UTC"))
    at = checked.table.schema.get_field_index("timestamp")
    made = InteractionGraph(weighing=weighing or Weighing())
    made.extend(unforgotten(checked.table.set_column(at, "timestamp", moments).take(order)))
    return made


def unforgotten(rows: pa.Table) -> pa.Table:
    """Events in their order without what a later `forget` of the user takes, as a store has them.

    In a store a row of type `forget` has a digest for a user_id; here it has the id itself.
    """
    forgets = pc.equal(rows["type"], FORGET).to_numpy()
    if not forgets.any():
        return rows
    users = rows["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.full(users.max() + 1, -1)
    last[users[forgets]] = np.flatnonzero(forgets)  # of several the last one counts
    return rows.filter(pa.array(np.arange(len(rows)) > last[users]))
