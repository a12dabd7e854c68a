"""How the events of a (user, item) pair make its edge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumer.event.json import LARGEST
from trainer.graph.arrays import Bools, Float32s, Float64s, Int64s

DAY_MS = 86_400_000
MOST_HALVINGS = 60.0  # that are told from more: what is left is still far from float32's ends


class Pairs(NamedTuple):
    """Edges as columns: int64 keys, float32 weights, int64 epoch milliseconds, and int64 places
    in the order in which the events were read.
    """

    keys: Int64s
    weights: Float32s
    timestamps: Int64s
    places: Int64s

    def where(self, mask: Bools) -> Pairs:
        """Those where `mask` is true."""
        return Pairs(self.keys[mask], self.weights[mask], self.timestamps[mask], self.places[mask])

    def then(self, other: Pairs) -> Pairs:
        """These, then the others."""
        return Pairs(
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.timestamps, other.timestamps]),
            np.concatenate([self.places, other.places]),
        )


@dataclass(frozen=True)
class Weighing:
    """An edge's weight from its events since the pair's last removal.

    events: the `last` one's, their `sum`, or the largest (`max`).
    types: factor of an interaction by its event's type; 1 for a type that is not named.
    half_life: days in which an event's weight halves; None for never.
    dampened: whether an edge's strength is the logarithm of 1 + its weight, so that a count of
    thousands does not drown the others.
    """

    events: Literal["last", "sum", "max"] = "last"
    types: tuple[tuple[str, float], ...] = ()
    half_life: float | None = None
    dampened: bool = False

    def factor(self, type_: str) -> float:
        """The factor of an interaction by its event's type."""
        return dict(self.types).get(type_, 1.0)

    def factors(self, types: pa.ChunkedArray) -> Float32s:
        """The factor of each event, float32 [events]."""
        coded = types.combine_chunks().dictionary_encode()
        known = [self.factor(name) for name in coded.dictionary.to_pylist()]
        factors: Float32s = np.array(known, np.float32)[coded.indices.to_numpy()]
        return factors

    def strengths(self, weights: Float32s, timestamps: Int64s, until: int) -> Float32s:
        """What the filters take edges for, float32 [edges]: the weights as of `until`, dampened if
        asked for; 0 where they are negative.
        """
        made = np.maximum(weights * self.decay(timestamps, np.int64(until)), 0)
        return (np.log1p(made) if self.dampened else made).astype(np.float32)

    def strength(self, weight: float, timestamp: int, until: int) -> float:
        """The same of one edge."""
        made = min(max(weight * self.decay(timestamp, until), 0.0), LARGEST)
        return math.log1p(made) if self.dampened else made

    @overload
    def decay(self, timestamps: int, until: int) -> float: ...
    @overload
    def decay(self, timestamps: Int64s, until: Int64s | np.int64) -> Float64s: ...
    def decay(self, timestamps: int | Int64s, until: int | Int64s | np.int64) -> float | Float64s:
        """What is left at `until` of a weight of 1 at `timestamps`, both in epoch milliseconds."""
        if self.half_life is None:
            return np.ones(np.shape(timestamps)) if isinstance(timestamps, np.ndarray) else 1.0
        exponent = (timestamps - until) / (self.half_life * DAY_MS)
        if isinstance(exponent, np.ndarray):
            made: Float64s = np.exp2(np.clip(exponent, -MOST_HALVINGS, MOST_HALVINGS))
            return made
        return float(2.0 ** min(max(exponent, -MOST_HALVINGS), MOST_HALVINGS))

    def after(self, weight: float, at: int, new: float, now: int) -> float:
        """The weight of an edge of `weight` as of `at` after an event of weight `new` at `now`."""
        if self.events == "last":
            return new
        old = weight * self.decay(at, now)
        made = max(old, new) if self.events == "max" else old + new
        return max(-LARGEST, min(made, LARGEST))

    def merge(self, events: Pairs, removals: Bools) -> Pairs:
        """One edge for each pair that has an event after its last removal, as of its last event.

        Args:
            events: in the order in which they happened, keys in any order; an edge made before
                counts as one event.
            removals: bool [events], true for those that take the pair's edge out.
        """
        order = np.argsort(events.keys, kind="stable")
        keys, timestamps = events.keys[order], events.timestamps[order]
        weights: npt.NDArray[np.floating] = events.weights[order]
        starts: Int64s = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
        last = np.append(starts[1:], len(keys)) - 1
        numbers = np.arange(len(keys))
        after_removal = np.maximum.reduceat(np.where(removals[order], numbers + 1, 0), starts)
        alive = after_removal <= last
        if self.events == "last":
            merged = weights[last]
        else:
            counts = np.diff(np.append(starts, len(keys)))
            live = numbers >= np.repeat(after_removal, counts)
            weights = weights * self.decay(timestamps, np.repeat(timestamps[last], counts))
            if self.events == "max":
                merged = np.maximum.reduceat(np.where(live, weights, -np.inf), starts)
            else:
                merged = np.add.reduceat(np.where(live, weights, 0), starts)
        kept = np.clip(merged[alive], -LARGEST, LARGEST).astype(np.float32)
        places = events.places[order]
        return Pairs(keys[last][alive], kept, timestamps[last][alive], places[last][alive])
