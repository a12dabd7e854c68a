"""Every user's edges as of now: the graph read from the edge store, and what the log says since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.store import EdgeStore, watermark
from consumer.edge.traces import split
from consumer.event.json import FORGET, LARGEST, REMOVE, Event
from consumer.ingest.decode import Position
from trainer.graph import Int32s, InteractionGraph
from trainer.weights import Float32s, Float64s, Int64s, Weighing

HALF_LIFE_MS = 7 * 86_400_000  # of an edge's part in the popular list
FAR = 50  # half-lives ahead of which the counts are taken anew as of then
NOTHING = 1e-9  # what rounding leaves of the count of an item whose edges were taken back


class Edge(NamedTuple):
    """A user's edge to an item: when its last event was, in epoch milliseconds, and its weight."""

    timestamp: int
    weight: float


Edges = dict[str, Edge]  # by item


class Block(NamedTuple):
    """The edges of a block of users, each user's own behind the other's.

    starts: int64 [users + 1]; items: int64 [edges], -1 for one without a number; strengths: float32
    [edges]; event_at: int64 [users], epoch milliseconds of the newest edge, 0 without one.
    """

    starts: Int64s
    items: Int64s
    strengths: Float32s
    event_at: Int64s


@dataclass
class Changed:
    """All edges of a user whom the log changed; `at` is the last change's place in Kafka."""

    items: Edges
    partition: int
    at: Position
    forgotten: bool = False  # and nothing came since


class UserEdges:
    """Grows from the edge store in bulk and from the log event by event."""

    def __init__(self, weighing: Weighing) -> None:
        self.graph = InteractionGraph(weighing=weighing)
        self.changed: dict[str, Changed] = {}
        self.watermark: dict[int, int] = {}
        self._numbers: dict[str, int] = {}
        self._starts: Int64s = np.zeros(1, np.int64)
        self._partitions: Int32s = np.empty(0, np.int32)  # of each user's newest row
        self._newest = 0  # epoch milliseconds, of the graph
        # Popularity is counted as of `_reference`, and told as of `_latest`; epoch milliseconds.
        self._reference = self._latest = 0
        self._counts: dict[str, float] = {}  # what the log changes of the items' popularity
        self._graph_counts: Float64s = np.empty(0)  # [items of the graph]

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
        if not len(rows):
            return set()
        kept, digests = split(rows)
        known = self.graph.n_users
        self.graph.extend(rows)
        self.watermark = watermark(rows, self.watermark)
        if digests:
            self._numbers.clear()
            known = 0
        new = self.graph.user_ids.values[known:].to_pylist()
        self._numbers.update(zip(new, range(known, known + len(new)), strict=True))
        self._numbers.pop("", None)  # those who are forgotten
        partitions = np.zeros(self.graph.n_users, np.int32)
        partitions[: len(self._partitions)] = self._partitions
        if len(kept):
            users = self.graph.user_ids.grow(kept["user_id"])
            partitions[users] = kept["kafka_partition"].to_numpy()
        self._partitions = partitions
        self.changed = {
            user: change
            for user, change in self.changed.items()
            if change.at.offset >= self.watermark.get(change.partition, 0)
        }
        self._index()
        return digests

    def begin(self, partition: int, offset: int) -> None:
        """The store has all of the partition before this offset, and so has the graph."""
        self.watermark[partition] = max(offset, self.watermark.get(partition, 0))

    def apply(self, event: Event, partition: int, at: Position) -> None:
        """One event of the log; applying a stretch of the log again ends in the same edges."""
        if at.offset < self.watermark.get(partition, 0):
            return  # the graph has it
        change = self.changed.get(event.user_id)
        if change and change.partition == partition and at <= change.at:
            return
        if event.type == FORGET:
            # It is in every partition. What came since in the user's own is not meant.
            if change is None or change.partition == partition:
                self._forget(event.user_id)
                self.changed[event.user_id] = Changed({}, partition, at, forgotten=True)
            return
        if change is None:
            change = Changed(self._of_graph(event.user_id), partition, at)
            self.changed[event.user_id] = change
        change.partition, change.at = partition, at
        change.forgotten = False
        old = change.items.pop(event.item_id, None)
        if old:
            self._count(event.item_id, old.timestamp, -1)
        if event.type == REMOVE:
            return
        weighing = self.graph.weighing
        weight = event.interaction * weighing.factor(event.type)
        if old:
            weight = weighing.after(old.weight, old.timestamp, weight, event.timestamp)
        change.items[event.item_id] = Edge(event.timestamp, weight)
        self._latest = max(self._latest, event.timestamp)
        self._count(event.item_id, event.timestamp, 1)

    def partition(self, user: str) -> int | None:
        """Of the user's newest event; None for one that `has` denies."""
        if not self.has(user):
            return None
        change = self.changed.get(user)
        return change.partition if change else int(self._partitions[self._numbers[user]])

    def has(self, user: str) -> bool:
        """Whether the user has come, and is not forgotten since."""
        change = self.changed.get(user)
        return not change.forgotten if change else user in self._numbers

    def items(self, user: str) -> Edges:
        """The user's edges with their strengths, as of the newest event in the graph."""
        change = self.changed.get(user)
        edges = change.items if change else self._of_graph(user)
        return {item: Edge(edge.timestamp, self._strength(edge)) for item, edge in edges.items()}

    def block(self, users: Sequence[str], of_graph: Int64s, of_id: Mapping[str, int]) -> Block:
        """The edges of users with their strengths, in the numbering of a model's items.

        Args:
            of_graph: int64 [items of the graph], the model's number of each, -1 for none;
            of_id: the same by id.
        """
        graph, strengths = self.graph, self.graph.strengths
        columns: list[tuple[Int64s, Float32s]] = []
        event_at = np.zeros(len(users), np.int64)
        for row, user in enumerate(users):
            change, number = self.changed.get(user), self._numbers.get(user)
            if change:
                numbers = [of_id.get(item, -1) for item in change.items]
                weights = [self._strength(edge) for edge in change.items.values()]
                columns.append((np.array(numbers, np.int64), np.array(weights, np.float32)))
                event_at[row] = max((edge.timestamp for edge in change.items.values()), default=0)
            elif number is not None:
                own = slice(self._starts[number], self._starts[number + 1])
                columns.append((of_graph[graph.items[own]], strengths[own]))
                event_at[row] = graph.timestamps[own].max(initial=0)
            else:
                columns.append((np.empty(0, np.int64), np.empty(0, np.float32)))
        starts = np.cumsum([0, *(len(items) for items, _ in columns)])
        if not columns:
            return Block(starts, np.empty(0, np.int64), np.empty(0, np.float32), event_at)
        items, weights_of = (np.concatenate(column) for column in zip(*columns, strict=True))
        return Block(starts, items, weights_of, event_at)

    @property
    def n_users(self) -> int:
        """Users with or without an edge."""
        return len(self._numbers) + sum(
            user not in self._numbers and not change.forgotten
            for user, change in self.changed.items()
        )

    def users(self, partitions: set[int] | None = None) -> list[str]:
        """Users with or without an edge, those that only the log knows last.

        Args:
            partitions: only users whose newest event is in one of these.
        """
        known: Iterable[str] = self._numbers
        if partitions is not None:
            mine = np.isin(self._partitions, list(partitions))
            known = (user for user, number in self._numbers.items() if mine[number])
        new = (
            user
            for user, change in self.changed.items()
            if user not in self._numbers
            and not change.forgotten
            and (partitions is None or change.partition in partitions)
        )
        return [*known, *new]

    def popular(self, n: int) -> tuple[list[str], Float32s]:
        """At most n items, recently popular ones first, and their decayed number of edges."""
        ids = self.graph.item_ids.values
        changed = pa.array(self._counts, pa.string())
        places = pc.index_in(changed, value_set=ids).fill_null(-1).to_numpy()
        # Nothing behind these can be among the first n, however the log has changed those before.
        first = np.argsort(-self._graph_counts, kind="stable")[: n + len(changed)]
        first = np.union1d(first, places[places >= 0])
        names = ids.take(pa.array(first)).to_pylist()
        counts = dict(zip(names, self._graph_counts[first].tolist(), strict=True))
        for item, change in self._counts.items():
            counts[item] = counts.get(item, 0.0) + change
        best = sorted(counts, key=lambda item: -counts[item])[:n]
        best = [i for i in best if counts[i] > (NOTHING if i in self._counts else 0)]
        now = 2.0 ** ((self._reference - self._latest) / HALF_LIFE_MS)
        return best, np.array([counts[item] * now for item in best], np.float32)

    def _index(self) -> None:
        """What is derived from the graph, anew."""
        graph = self.graph
        self._starts = graph.row_starts()
        self._newest = int(graph.timestamps.max(initial=0))
        self._reference, self._latest = self._newest, max(self._latest, self._newest)
        age = (self._reference - graph.timestamps) / HALF_LIFE_MS
        decayed = np.bincount(graph.items, np.exp2(-age), minlength=graph.n_items)
        self._graph_counts = decayed.astype(np.float64)  # it is int64 without an edge
        self._counts.clear()
        for user, change in self.changed.items():
            for edges, sign in ((self._of_graph(user), -1), (change.items, 1)):
                for item, edge in edges.items():
                    self._count(item, edge.timestamp, sign)

    def _count(self, item: str, at: int, sign: int) -> None:
        if (at - self._reference) / HALF_LIFE_MS > FAR:
            faded = 2.0 ** ((self._reference - at) / HALF_LIFE_MS)
            self._graph_counts *= faded
            self._counts = {item: count * faded for item, count in self._counts.items()}
            self._reference = at
        part = 2.0 ** ((at - self._reference) / HALF_LIFE_MS)
        self._counts[item] = self._counts.get(item, 0.0) + sign * part

    def _strength(self, edge: Edge) -> float:
        decay = self.graph.weighing.decay(edge.timestamp, self._newest)
        return min(max(edge.weight * decay, 0.0), LARGEST)

    def _forget(self, user: str) -> None:
        for item, edge in self._edges(user).items():
            self._count(item, edge.timestamp, -1)
        number = self._numbers.pop(user, None)
        if number is not None:
            self.graph.forget([number])
            self._starts = self.graph.row_starts()

    def _edges(self, user: str) -> Edges:
        change = self.changed.get(user)
        return change.items if change else self._of_graph(user)

    def _of_graph(self, user: str) -> Edges:
        number = self._numbers.get(user)
        if number is None:
            return {}
        own = slice(self._starts[number], self._starts[number + 1])
        items = self.graph.item_ids.values.take(pa.array(self.graph.items[own])).to_pylist()
        times, weights = self.graph.timestamps[own], self.graph.weights[own]
        edges = map(Edge, times.tolist(), weights.tolist())
        return dict(zip(items, edges, strict=True))
