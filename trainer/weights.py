"""How the events of a (user, item) pair make its edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DAY_MS = 86_400_000
Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Pairs(NamedTuple):
    """Edges sorted by key: int64 keys, float32 weights, int64 epoch milliseconds."""

    keys: Int64s
    weights: Float32s
    timestamps: Int64s


@dataclass(frozen=True)
class Weighing:
    """An edge's weight from its events since the pair's last removal.

    events: the `last` one's, their `sum`, or the largest (`max`).
    types: factor of an interaction by its event's type; 1 for a type that is not named.
    half_life: days in which an event's weight halves; None for never.
    """

    events: Literal["last", "sum", "max"] = "last"
    types: tuple[tuple[str, float], ...] = ()
    half_life: float | None = None

    def factors(self, types: pa.ChunkedArray) -> Float32s:
        """The factor of each event, float32 [events]."""
        if not self.types:
            return np.ones(len(types), np.float32)
        named = pa.array([name for name, _ in self.types], pa.string())
        values = np.array([*(value for _, value in self.types), 1.0], np.float32)
        at = pc.fill_null(pc.index_in(types, value_set=named), len(named)).to_numpy()
        factors: Float32s = values[at]
        return factors

    def decay(self, timestamps: Int64s, until: Int64s | np.int64) -> npt.NDArray[np.float64]:
        """What is left at `until` of a weight of 1 at `timestamps`, both in epoch milliseconds."""
        if self.half_life is None:
            return np.ones(len(timestamps))
        return np.exp2((timestamps - until) / (self.half_life * DAY_MS))

    def merge(self, events: Pairs, removals: Bools) -> Pairs:
        """One edge for each pair that has an event after its last removal, as of its last event.

        Args:
            events: in the order in which they happened, keys in any order; an edge made before
                counts as one event.
            removals: bool [events], true for those that take the pair's edge out.
        """
        order = np.argsort(events.keys, kind="stable")
        keys, weights, timestamps = (column[order] for column in events)
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
        last = np.append(starts[1:], len(keys)) - 1
        places = np.arange(len(keys))
        after_removal = np.maximum.reduceat(np.where(removals[order], places + 1, 0), starts)
        alive = after_removal <= last
        if self.events == "last":
            merged = weights[last]
        else:
            counts = np.diff(np.append(starts, len(keys)))
            live = places >= np.repeat(after_removal, counts)
            weights = weights * self.decay(timestamps, np.repeat(timestamps[last], counts))
            if self.events == "sum":
                merged = np.add.reduceat(np.where(live, weights, 0), starts)
            else:
                merged = np.maximum.reduceat(np.where(live, weights, -np.inf), starts)
        return Pairs(
            keys[last][alive], merged[alive].astype(np.float32), timestamps[last][alive]
        )
