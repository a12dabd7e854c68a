"""Every user's edges as of now: the graph read from the edge store, and what the log says since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from consumer.edges import EdgeStore, watermark
from consumer.erasure import split
from consumer.events import FORGET, REMOVE, Event
from trainer.graph import InteractionGraph
from trainer.weights import Float32s, Weighing

HALF_LIFE_MS = 7 * 86_400_000  # of an edge's part in the popular list


class Edge(NamedTuple):
    """A user's edge to an item: when its last event was, in epoch milliseconds, and its weight."""

    timestamp: int
    weight: float


Edges = dict[str, Edge]  # by item


@dataclass
class Changed:
    """All edges of a user whom the log changed; `at` is the last change's Kafka position."""

    items: Edges
    at: tuple[int, int]  # partition, offset
    forgotten: bool = False  # and nothing came since


class UserEdges:
    """Grows from the edge store in bulk and from the log event by event."""

    def __init__(self, weighing: Weighing) -> None:
        self.graph = InteractionGraph(weighing=weighing)
        self.changed: dict[str, Changed] = {}
        self.watermark: dict[int, int] = {}
        self._numbers: dict[str, int] = {}

    def grow(self, store: EdgeStore) -> set[str]:
        """Read the store's new rows, and forget what the log had told of them.

        Returns:
            The digests of users who were forgotten in them.

        Raises:
            StoreError: the store cannot be read.
        """
        if not store.changed():
            return set()
        rows = store.since(self.watermark)
        digests = split(rows)[1]
        known = self.graph.n_users
        self.graph.extend(rows)
        self.watermark = watermark(rows, self.watermark)
        if digests:
            self._numbers.clear()
            known = 0
        new = self.graph.user_ids.values[known:].to_pylist()
        self._numbers.update(zip(new, range(known, known + len(new)), strict=True))
        self._numbers.pop("", None)  # those who are forgotten
        self.changed = {
            user: change
            for user, change in self.changed.items()
            if change.at[1] >= self.watermark.get(change.at[0], 0)
        }
        return digests

    def apply(self, event: Event, partition: int, offset: int) -> None:
        """One event of the log; applying a stretch of the log again ends in the same edges."""
        change = self.changed.get(event.user_id)
        if change is None and offset < self.watermark.get(partition, 0):
            return  # the graph has it
        if event.type == FORGET:
            # It is in every partition. What came since in the user's own is not meant.
            if change is None or change.at[0] == partition:
                self._forget(event.user_id)
                self.changed[event.user_id] = Changed({}, (partition, offset), forgotten=True)
            return
        if change is None:
            change = Changed(self._of_graph(event.user_id), (partition, offset))
            self.changed[event.user_id] = change
        change.at = (partition, offset)
        change.forgotten = False
        if event.type == REMOVE:
            change.items.pop(event.item_id, None)
        else:
            weighing = self.graph.weighing
            weight = event.interaction * weighing.factor(event.type)
            old = change.items.get(event.item_id)
            if old:
                weight = weighing.after(old.weight, old.timestamp, weight, event.timestamp)
            change.items[event.item_id] = Edge(event.timestamp, weight)

    def forgotten(self, user: str) -> bool:
        """Whether the log says that the user is forgotten, and nothing of it since."""
        change = self.changed.get(user)
        return change is not None and change.forgotten

    def items(self, user: str) -> Edges:
        """The user's edges with their strengths, as of the newest event in the graph."""
        change = self.changed.get(user)
        edges = change.items if change else self._of_graph(user)
        newest = int(self.graph.timestamps.max(initial=0))
        decay = self.graph.weighing.decay
        return {
            item: Edge(at, max(weight * decay(at, newest), 0.0))
            for item, (at, weight) in edges.items()
        }

    @property
    def n_users(self) -> int:
        """Users with or without an edge."""
        return len(self._numbers) + sum(
            user not in self._numbers and not change.forgotten
            for user, change in self.changed.items()
        )

    def users(self) -> list[str]:
        """All users with or without an edge, those that only the log knows last."""
        new = [user for user in self.changed if user not in self._numbers]
        return [*self._numbers, *(user for user in new if not self.forgotten(user))]

    def popular(self) -> tuple[list[str], Float32s]:
        """All items, recently popular ones first, and their decayed number of edges."""
        graph = self.graph
        recent = [
            (item, edge.timestamp)
            for change in self.changed.values()
            for item, edge in change.items.items()
        ]
        items = pa.chunked_array(
            [graph.item_ids.values, pa.array([i for i, _ in recent], pa.string())]
        )
        ids = items.combine_chunks().dictionary_encode()
        numbers = ids.indices.to_numpy()
        edges = np.concatenate([numbers[graph.items], numbers[graph.n_items :]])
        times = np.concatenate([graph.timestamps, np.array([t for _, t in recent], np.int64)])
        age = (times.max(initial=0) - times) / HALF_LIFE_MS
        counts = np.bincount(edges, np.exp2(-age), minlength=len(ids.dictionary))
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        return ids.dictionary.take(pa.array(order)).to_pylist(), counts[order].astype(np.float32)

    def _forget(self, user: str) -> None:
        number = self._numbers.pop(user, None)
        if number is not None:
            self.graph.forget([number])

    def _of_graph(self, user: str) -> Edges:
        number = self._numbers.get(user)
        if number is None:
            return {}
        begin, end = np.searchsorted(self.graph.users, [number, number + 1])
        items = self.graph.item_ids.values.take(pa.array(self.graph.items[begin:end])).to_pylist()
        times, weights = self.graph.timestamps[begin:end], self.graph.weights[begin:end]
        edges = map(Edge, times.tolist(), weights.tolist())
        return dict(zip(items, edges, strict=True))
