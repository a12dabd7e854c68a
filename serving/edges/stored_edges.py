"""The users' edges as the edge store had them when it was read last."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from consumer.edge.store import EdgeStore, Watermark
from serving.edges.changes import Positions, are_before
from serving.edges.edge import Edge, Edges
from trainer.graph.arrays import Int32s, Int64s
from trainer.graph.growth import grow, read_again
from trainer.graph.ids import Ids
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing


class GrowthResult(NamedTuple):
    """What was read of the edge store.

    digests: of the ids of users who were forgotten; read_again: users whose edges were all read
    again.
    """

    digests: set[str]
    read_again: set[str]


class StoredEdges:
    """A graph, the number of each user in it, and the Kafka partition of each user's newest row.

    is_half_read: whether the last growth failed, so that there is something to be read or to be
    told, also where the store has nothing new.
    """

    def __init__(self, weighing: Weighing) -> None:
        self.graph = InteractionGraph(weighing=weighing)
        self.watermark = Watermark()
        self.numbers: dict[str, int] = {}
        self.starts: Int64s = np.zeros(1, np.int64)  # of each user's edges in the graph
        self.is_half_read = False
        self._items: list[str] = []  # ids of the graph's items; Arrow is slow at a few at a time
        self._partitions: Int32s = np.empty(0, np.int32)
        self._several = np.empty(0, np.bool_)  # whether a user's rows are of several partitions
        self._digests: set[str] = set()  # of users who are forgotten; nobody was told yet

    def copy(self) -> StoredEdges:
        """The same, to be grown on another thread: it shares arrays, which nobody changes."""
        graph = self.graph
        same = StoredEdges(graph.weighing)
        ids = Ids(graph.user_ids.values), Ids(graph.item_ids.values)
        same.graph = replace(graph, user_ids=ids[0], item_ids=ids[1])
        same.watermark, same.numbers, same.starts = self.watermark, dict(self.numbers), self.starts
        same._partitions, same._several = self._partitions, self._several
        same._digests = set(self._digests)
        same._items = list(self._items)
        return same

    def emptied(self) -> StoredEdges:
        """Without edges, for another store; the users who were forgotten are still to be told."""
        other = StoredEdges(self.graph.weighing)
        other._digests = set(self._digests)
        return other

    def grow(self, store: EdgeStore, cut: Mapping[str, Positions], log: int) -> GrowthResult:
        """Read the store's new rows.

        Args:
            cut: users who were forgotten in one of several partitions, and their newest places in
                the log number `log`: once the store has all of these, their edges are read again.

        Raises:
            StoreError: the store cannot be read; what was read until then stays, and the next
                call returns the digests with others.
        """
        known, self.is_half_read = self.graph.n_users, True
        try:
            for step in grow(self.graph, store, self.watermark):
                self._digests |= step.notices.keys()
                self._note_partitions(step.rows)
                self.watermark = step.watermark
            offsets = self.watermark.offsets(log)
            users = {user for user, places in cut.items() if are_before(places, offsets)}
            if users:
                rows = read_again(self.graph, store, self.watermark, users)
                self._note_partitions(rows)
        finally:
            self._number_users(0 if self._digests else known)
            self._items += self.graph.item_ids.values[len(self._items) :].to_pylist()
            self.starts = self.graph.starts
        self.is_half_read = False
        digests, self._digests = self._digests, set()
        return GrowthResult(digests, users)

    def prepare(self) -> None:
        """Make what the graph derives from its edges when it is first asked for."""
        self.graph.prepare()

    def forget(self, user: str) -> None:
        """Take out a user."""
        number = self.numbers.pop(user, None)
        if number is not None:
            self.graph.forget([number])
            self.starts = self.graph.starts

    def expire(self, oldest: int) -> dict[str, int]:
        """Take out the edges whose last event is older than `oldest`, epoch milliseconds.

        Returns:
            The users who lost an edge, and the partition of each.
        """
        ids = self.graph.user_ids.values
        numbers = self.graph.expire(oldest)
        if len(numbers):
            self._number_users(0)
            self.starts = self.graph.starts
        names = ids.take(pa.array(numbers)).to_pylist()
        return dict(zip(names, self._partitions[numbers].tolist(), strict=True))

    def partition(self, user: str) -> int | None:
        """The partition of the user's newest row; None for a user that is not there."""
        number = self.numbers.get(user)
        return None if number is None else int(self._partitions[number])

    def is_of_several(self, user: str) -> bool:
        """Whether the user's rows are of several partitions."""
        number = self.numbers.get(user)
        return number is not None and bool(self._several[number])

    def users_of(self, partitions: Set[int]) -> list[str]:
        """The users whose newest row is of one of the partitions."""
        mine = np.isin(self._partitions, list(partitions))
        return [user for user, number in self.numbers.items() if mine[number]]

    def of(self, user: str) -> Edges:
        """The user's edges with their weights, in the order of their events."""
        number = self.numbers.get(user)
        if number is None:
            return {}
        own = slice(self.starts[number], self.starts[number + 1])
        graph, times = self.graph, self.graph.timestamps[own]
        order = np.lexsort((graph.places[own], times))
        items = map(self._items.__getitem__, graph.items[own][order].tolist())
        weights = graph.weights[own][order].tolist()
        edges = map(Edge._make, zip(times[order].tolist(), weights, strict=True))
        return dict(zip(items, edges, strict=True))

    def _number_users(self, known: int) -> None:
        """Number the users of the graph from number `known` on."""
        if not known:
            self.numbers.clear()
        new = self.graph.user_ids.values[known:].to_pylist()
        self.numbers.update(zip(new, range(known, known + len(new)), strict=True))
        self.numbers.pop("", None)  # users who are forgotten

    def _note_partitions(self, rows: pa.Table) -> None:
        """Remember the partition of each user's newest row, and who has rows in several."""
        more = self.graph.n_users - len(self._partitions)
        before = np.concatenate([self._partitions, np.full(more, -1, np.int32)])
        self._partitions = before.copy()
        self._several = np.concatenate([self._several, np.zeros(more, np.bool_)])
        if len(rows):
            users = self.graph.user_ids.grow(rows["user_id"])
            of_rows = rows["kafka_partition"].to_numpy()
            self._partitions[users] = of_rows  # of several rows the last one counts
            new = np.flatnonzero(before[users] < 0)[::-1]
            before[users[new]] = of_rows[new]  # and here the first one
            self._several[users[before[users] != of_rows]] = True
