"""How popular each item is of late: the stored edges, and what the topic changes of them.

An edge counts 1 when it is new, and half as much with each half-life, whatever its strength, so
that one user's large number does not outweigh many users. An edge that tells a dislike, or whose
type weighs nothing, does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.edges.edge import Edge
from trainer.graph.arrays import Float64s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.popularity import HALF_LIFE_MS

# Counts are powers of 2 of the time since a reference. An edge so many half-lives after it moves
# the reference, long before the powers become too large for a float.
HALF_LIVES_AHEAD = 50
ROUNDING = 1e-9  # what rounding leaves of the count of an item whose edges were taken back


class Counted(NamedTuple):
    """Items, the most popular first, and their counts float64 [items] as of `latest`, epoch
    milliseconds."""

    items: list[str]
    counts: Float64s
    latest: int


def together(parts: Sequence[Counted], n: int) -> Counted:
    """At most n items by the sums of their counts, which are of different users in each part."""
    latest = max(part.latest for part in parts)
    sums: dict[str, float] = {}
    for part in parts:
        faded = 2.0 ** ((part.latest - latest) / HALF_LIFE_MS)
        for item, count in zip(part.items, (part.counts * faded).tolist(), strict=True):
            sums[item] = sums.get(item, 0.0) + count
    items = sorted(sums, key=sums.__getitem__, reverse=True)[:n]
    return Counted(items, np.array([sums[item] for item in items], np.float64), latest)


class ItemPopularity:
    """Decayed counts of the items' edges."""

    def __init__(self) -> None:
        # Counts are kept as of `_reference`, and given as of `_latest`; epoch milliseconds.
        self._reference = self._latest = 0
        self._stored: Float64s = np.empty(0)  # [items of the graph]
        self._changes: dict[str, float] = {}  # what the topic adds to and takes from them

    def recount(self, graph: InteractionGraph) -> None:
        """Count the edges of the graph; what the topic changes is to be counted again after it."""
        newest = int(graph.timestamps.max(initial=0))
        self._reference, self._latest = newest, max(self._latest, newest)
        halvings = (newest - graph.timestamps) / HALF_LIFE_MS
        parts = np.where(graph.weights > 0, np.exp2(-halvings), 0)
        counts = np.bincount(graph.items, parts, minlength=graph.n_items)
        self._stored = counts.astype(np.float64)  # it is int64 without an edge
        self._changes.clear()

    def add(self, item: str, edge: Edge) -> None:
        """Count an edge that the topic tells."""
        self._latest = max(self._latest, edge.timestamp)
        self.change(item, edge, 1)

    def change(self, item: str, edge: Edge, sign: int) -> None:
        """Count an edge (sign 1), or count it no more (-1)."""
        if edge.weight <= 0:
            return
        if (edge.timestamp - self._reference) / HALF_LIFE_MS > HALF_LIVES_AHEAD:
            self._move_reference(edge.timestamp)
        part = 2.0 ** ((edge.timestamp - self._reference) / HALF_LIFE_MS)
        self._changes[item] = self._changes.get(item, 0.0) + sign * part

    def top(self, n: int, item_ids: pa.Array) -> Counted:
        """At most n items, the most popular first.

        Args:
            item_ids: the ids of the graph that was counted.
        """
        changed = pa.array(self._changes, pa.string())
        changes = np.fromiter(self._changes.values(), np.float64, len(changed))
        places = pc.index_in(changed, value_set=item_ids).fill_null(-1).to_numpy()
        known = places >= 0
        counts = np.concatenate([self._stored, changes[~known]])
        counts[places[known]] += changes[known]
        least = np.zeros(len(counts))  # what was taken back may leave a little more than 0
        least[places[known]] = least[len(self._stored) :] = ROUNDING
        best = np.argsort(-counts, kind="stable")[:n]
        best = best[counts[best] > least[best]]
        ids = pa.chunked_array([item_ids, changed.filter(pa.array(~known))])
        faded = 2.0 ** ((self._reference - self._latest) / HALF_LIFE_MS)
        return Counted(ids.take(pa.array(best)).to_pylist(), counts[best] * faded, self._latest)

    def _move_reference(self, at: int) -> None:
        faded = 2.0 ** ((self._reference - at) / HALF_LIFE_MS)
        self._stored *= faded
        self._changes = {item: count * faded for item, count in self._changes.items()}
        self._reference = at
