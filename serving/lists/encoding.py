"""Lists as columns -> the JSON values of the Redis contract; the one place that encodes a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.arrays import Float32s, Int64s

DIGITS = 5  # of a score behind the point
PRECISION = 18  # digits of a decimal64


class Lists(NamedTuple):
    """The lists of a block of users (or items), best first.

    items, because: int64 [block, k], numbers of the recommended items and of the own items with the
    largest share of each score; scores: float32 [block, k]; counts: int64 [block], how many
    of a row are the list; event_at: int64 [block], epoch milliseconds.

    `because` has no columns where no user's items led to the lists.
    """

    items: Int64s
    scores: Float32s
    because: Int64s
    counts: Int64s
    event_at: Int64s


def quoted(ids: pa.Array) -> pa.Array:
    """Ids as JSON strings, quotes included."""
    return pa.array([msgspec.json.encode(each).decode() for each in ids.to_pylist()], pa.string())


def encode(
    lists: Lists, ids: pa.Array, model: str, sources: Sequence[str], updated_at: int
) -> list[bytes]:
    """One JSON value a row, as serving/redis/contract.py says, without a Python loop.

    Args:
        ids: the items' ids, `quoted`.
        model: version of the model, empty if there is none.
        sources: one a row.
        updated_at: epoch milliseconds.
    """
    shown = np.arange(lists.items.shape[1]) < lists.counts[:, None]
    starts = pa.array(np.cumsum([0, *lists.counts]), pa.int32())

    def joined(column: pa.Array) -> pa.Array:
        return pc.binary_join(pa.ListArray.from_arrays(starts, column), ",")

    def named(numbers: npt.NDArray[np.int64]) -> pa.Array:
        return joined(ids.take(pa.array(numbers[shown]))) if numbers.shape[1] else ""

    name = msgspec.json.encode(model).decode()
    joined_parts = pc.binary_join_element_wise(
        '{"items":[',
        named(lists.items),
        '],"scores":[',
        joined(_decimals(lists.scores[shown])),
        '],"because":[',
        named(lists.because),
        f'],"model":{name},"source":"',
        pa.array(sources, pa.string()),
        '","event_at":',
        pa.array(lists.event_at).cast(pa.string()),
        f',"updated_at":{updated_at}}}',
        "",
    )
    encoded: list[bytes] = joined_parts.cast(pa.binary()).to_pylist()
    return encoded


def _decimals(scores: Float32s) -> pa.Array:
    """As strings; by way of decimals, which Arrow writes almost twice as fast as floats."""
    whole = np.rint(scores.astype(np.float64) * 10**DIGITS).astype(np.int64)
    kind = pa.decimal64(PRECISION, DIGITS)
    decimals = pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)])
    return decimals.cast(pa.string())
