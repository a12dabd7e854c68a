"""Every user's edges as of now: the graph read from the edge store, and what the log says since."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.store import EdgeStore, Watermark
from consumer.event.json import FORGET, REMOVE, Event
from consumer.ingest.decode import Position
from trainer.graph.arrays import Float32s, Float64s, Int32s, Int64s
from trainer.graph.growth import grow, read_again
from trainer.graph.interactions import InteractionGraph
from trainer.graph.popularity import HALF_LIFE_MS
from trainer.graph.weights import Weighing

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
    [edges]; ages: int64 [edges], how many newer edges the user has; event_at: int64 [users], epoch
    milliseconds of the newest edge, 0 without one.
    """

    starts: Int64s
    items: Int64s
    strengths: Float32s
    ages: Int64s
    event_at: Int64s


NO_EDGES = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)


def ages(times: Sequence[int]) -> Int64s:
    """How many newer edges a user has beside each of these, int64 [edges]; as in the graph.

    Args:
        times: epoch milliseconds of all the user's edges; of equal ones the later is newer.
    """
    if len(set(times)) < 2:
        return np.zeros(len(times), np.int64)
    made = np.empty(len(times), np.int64)
    made[np.argsort(np.array(times), kind="stable")] = np.arange(len(times))[::-1]
    return made


@dataclass
class Changed:
    """All edges of a user whom the log changed; `at` is the last change's place in Kafka."""

    items: Edges
    partition: int
    at: Position
    forgotten: bool = False  # and nothing came since
    elsewhere: dict[int, Position] | None = None  # last places in other partitions, if any

    def move(self, partition: int, at: Position) -> bool:
        """Note the place of a further event; False if it is no further one."""
        known = self.at if partition == self.partition else (self.elsewhere or {}).get(partition)
        if known and at <= known:
            return False
        if partition != self.partition:
            self.elsewhere = (self.elsewhere or {}) | {self.partition: self.at}
            self.elsewhere.pop(partition, None)
        self.partition, self.at = partition, at
        return True

    def is_before(self, offsets: Mapping[int, int]) -> bool:
        """Whether all of its places are before the offsets, partition -> offset."""
        places = {**(self.elsewhere or {}), self.partition: self.at}
        return all(at.offset < offsets.get(p, 0) for p, at in places.items())


class UserEdges:
    """Grows from the edge store in bulk and from the log event by event."""

    def __init__(self, weighing: Weighing) -> None:
        self.graph = InteractionGraph(weighing=weighing)
        self.changed: dict[str, Changed] = {}
        # Users with events in several partitions, whose order the edge store tells; and those of
        # them who since had other edges in the store than the log had told here.
        self.unsettled: set[str] = set()
        self.settled: set[str] = set()
        self._cut: set[str] = set()  # of these, who were forgotten in one of the partitions
        self.watermark = Watermark()
        self._log = 0  # that `apply` is told of
        self._numbers: dict[str, int] = {}
        self._starts: Int64s = np.zeros(1, np.int64)
        self._partitions: Int32s = np.empty(0, np.int32)  # of each user's newest row
        self._several = np.empty(0, np.bool_)  # whether a user's rows are of several partitions
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
        if not store.changed(self.watermark):
            return set()
        digests: set[str] = set()
        known = self.graph.n_users
        try:
            for step in grow(self.graph, store, self.watermark):
                digests |= step.notices.keys()
                self._note_partitions(step.rows)
                self.watermark = step.watermark
            self._read_again(store)
        finally:
            self._number(0 if digests else known)
            self._settle()
            self._index()
        return digests

    def dampen(self, on: bool) -> None:
        """Give strengths as the model in use takes them (see trainer/graph/weights.py)."""
        self.graph.dampen(on)

    def begin(self, log: int, partition: int, offset: int) -> None:
        """The store has all of the partition before this offset, and so has the graph."""
        if log != self._log:  # what another log has told and the store has not is gone
            self._log = log
            self.settled |= self.changed.keys()
            self.changed.clear()
            self.unsettled.clear()
            self._index()
        self.watermark = self.watermark.begin(log, partition, offset)

    def apply(self, event: Event, partition: int, at: Position) -> None:
        """One event of the log; applying a stretch of the log again ends in the same edges.

        The order of a user's events of several partitions is known once the edge store has them;
        until then it is the order in which they came here.
        """
        user = event.user_id
        if at.offset < self.watermark.offsets(self._log).get(partition, 0):
            return  # the graph has it
        change = self.changed.get(user)
        own = self.partition(user) if change is None else change.partition
        number = self._numbers.get(user, -1)
        several = bool(change and change.elsewhere) or (number >= 0 and self._several[number])
        if event.type == FORGET:
            # It is in every partition. What came since in the user's own is not meant.
            if own in (None, partition):
                if change is None or change.move(partition, at):
                    self._forget(user)
                    if several:
                        self._cut.add(user)
                    elsewhere = change.elsewhere if change else None
                    self.changed[user] = Changed({}, partition, at, True, elsewhere)
            elif several:
                change = change or Changed(self._of_graph(user), own, Position(-1, 0))
                change.elsewhere = (change.elsewhere or {}) | {partition: at}
                self.changed[user] = change
            if several:
                self.unsettled.add(user)
            return
        if several or own not in (None, partition):
            self.unsettled.add(user)
        if change is None:
            change = self.changed[user] = Changed(self._of_graph(user), partition, at)
        elif not change.move(partition, at):
            return
        change.forgotten = False
        old = change.items.pop(event.item_id, None)
        if old:
            self._count(event.item_id, old, -1)
        if event.type == REMOVE:
            return
        timestamp = min(event.timestamp, int(time.time() * 1000))  # as the graph takes it
        weighing = self.graph.weighing
        weight = event.interaction * weighing.factor(event.type)
        if old:
            weight = weighing.after(old.weight, old.timestamp, weight, timestamp)
        change.items[event.item_id] = Edge(timestamp, weight)
        self._latest = max(self._latest, timestamp)
        self._count(event.item_id, change.items[event.item_id], 1)

    def expire(self, oldest: int) -> dict[str, int]:
        """Take out the edges whose last event is older than `oldest`, epoch milliseconds.

        Users who have others left are settled anew.

        Returns:
            Users who have none left, and the partition of the newest event of each.
        """
        ids = self.graph.user_ids.values
        numbers = self.graph.expire(oldest)
        names = ids.take(pa.array(numbers)).to_pylist()
        touched = dict(zip(names, self._partitions[numbers].tolist(), strict=True))
        for user, change in self.changed.items():
            old = [item for item, edge in change.items.items() if edge.timestamp < oldest]
            for item in old:
                del change.items[item]
            if old or user in touched:
                touched[user] = change.partition
        if not touched:
            return {}
        self._number(0)
        gone = {}
        for user, partition in touched.items():
            told = self.changed.get(user)
            if told.items if told else user in self._numbers:
                self.settled.add(user)
                continue
            gone[user] = partition
            if told:
                told.forgotten = True
        self._index()
        return gone

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

    def likes(self, user: str, item: str) -> bool:
        """Whether the user has an edge of some strength to the item."""
        edge = self._edges(user).get(item)
        return edge is not None and edge.weight > 0

    def items(self, user: str) -> Edges:
        """The user's edges with their strengths, as of the newest event in the graph."""
        change = self.changed.get(user)
        edges = change.items if change else self._of_graph(user)
        return {item: Edge(edge.timestamp, self._strength(edge)) for item, edge in edges.items()}

    def touch(self, user: str, item: str) -> tuple[float, int] | None:
        """Weight and age of the user's edge to the item, None without one."""
        edges = self.items(user)
        if item not in edges:
            return None
        place = list(edges).index(item)
        return edges[item].weight, int(ages([edge.timestamp for edge in edges.values()])[place])

    def block(self, users: Sequence[str], of_graph: Int64s, of_id: Mapping[str, int]) -> Block:
        """The edges of users with their strengths, in the numbering of a model's items.

        Args:
            of_graph: int64 [items of the graph], the model's number of each, -1 for none;
            of_id: the same by id.
        """
        graph, strengths = self.graph, self.graph.strengths
        columns: list[tuple[Int64s, Float32s, Int64s]] = []
        event_at = np.zeros(len(users), np.int64)
        for row, user in enumerate(users):
            change, number = self.changed.get(user), self._numbers.get(user)
            if change:
                numbers = [of_id.get(item, -1) for item in change.items]
                weights = [self._strength(edge) for edge in change.items.values()]
                columns.append(
                    (
                        np.array(numbers, np.int64),
                        np.array(weights, np.float32),
                        ages([edge.timestamp for edge in change.items.values()]),
                    )
                )
                event_at[row] = max((edge.timestamp for edge in change.items.values()), default=0)
            elif number is not None:
                own = slice(self._starts[number], self._starts[number + 1])
                columns.append((of_graph[graph.items[own]], strengths[own], graph.ages[own]))
                event_at[row] = graph.timestamps[own].max(initial=0)
            else:
                columns.append(NO_EDGES)
        starts = np.cumsum([0, *(len(items) for items, *_ in columns)])
        made = zip(*(columns or [NO_EDGES]), strict=True)
        items, weights_of, ages_of = (np.concatenate(column) for column in made)
        return Block(starts, items, weights_of, ages_of, event_at)

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
        """At most n items, recently popular ones first, and their decayed number of edges.

        An edge counts 1 whatever its strength, lest one user's large number outweighs many users.
        One that tells a dislike, or whose type weighs nothing, does not count.
        """
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

    def _read_again(self, store: EdgeStore) -> None:
        """Take users from the store who were forgotten in one of several partitions."""
        changed, offsets = self.changed, self.watermark.offsets(self._log)
        users = {u for u in self._cut if u not in changed or changed[u].is_before(offsets)}
        if users:
            self._note_partitions(read_again(self.graph, store, self.watermark, users))
            self._cut -= users

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

    def _number(self, known: int) -> None:
        """Number the users of the graph from number `known` on."""
        if not known:
            self._numbers.clear()
        new = self.graph.user_ids.values[known:].to_pylist()
        self._numbers.update(zip(new, range(known, known + len(new)), strict=True))
        self._numbers.pop("", None)  # those who are forgotten

    def _settle(self) -> None:
        """Drop what the log had told and the graph has by now."""
        self._starts = self.graph.row_starts()
        kept = {}
        for user, change in self.changed.items():
            if not change.is_before(self.watermark.offsets(self._log)):
                kept[user] = change
            elif user in self.unsettled:
                self.unsettled.discard(user)
                if change.items != self._of_graph(user):
                    self.settled.add(user)
        self.changed = kept

    def _index(self) -> None:
        """What is derived from the graph, anew."""
        graph = self.graph
        self._starts = graph.row_starts()
        self._newest = int(graph.timestamps.max(initial=0))
        self._reference, self._latest = self._newest, max(self._latest, self._newest)
        age = (self._reference - graph.timestamps) / HALF_LIFE_MS
        parts = np.where(graph.weights > 0, np.exp2(-age), 0)
        decayed = np.bincount(graph.items, parts, minlength=graph.n_items)
        self._graph_counts = decayed.astype(np.float64)  # it is int64 without an edge
        self._counts.clear()
        for user, change in self.changed.items():
            for edges, sign in ((self._of_graph(user), -1), (change.items, 1)):
                for item, edge in edges.items():
                    self._count(item, edge, sign)

    def _count(self, item: str, edge: Edge, sign: int) -> None:
        if edge.weight <= 0:
            return
        at = edge.timestamp
        if (at - self._reference) / HALF_LIFE_MS > FAR:
            faded = 2.0 ** ((self._reference - at) / HALF_LIFE_MS)
            self._graph_counts *= faded
            self._counts = {item: count * faded for item, count in self._counts.items()}
            self._reference = at
        part = 2.0 ** ((at - self._reference) / HALF_LIFE_MS)
        self._counts[item] = self._counts.get(item, 0.0) + sign * part

    def _strength(self, edge: Edge) -> float:
        return self.graph.weighing.strength(edge.weight, edge.timestamp, self._newest)

    def _forget(self, user: str) -> None:
        for item, edge in self._edges(user).items():
            self._count(item, edge, -1)
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
        order = np.lexsort((self.graph.places[own], self.graph.timestamps[own]))
        at = self._starts[number] + order
        items = self.graph.item_ids.values.take(pa.array(self.graph.items[at])).to_pylist()
        times, weights = self.graph.timestamps[at], self.graph.weights[at]
        edges = map(Edge, times.tolist(), weights.tolist())
        return dict(zip(items, edges, strict=True))
