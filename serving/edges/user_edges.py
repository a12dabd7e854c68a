"""Every user's edges as of now: the edge store's, and above them what the topic has told since.

This file is longer than 250 lines because all that others ask of the users' edges is one class; the
work is done in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set

import numpy as np

from consumer.edge.store import EdgeStore, Watermark
from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.changes import Changed
from serving.edges.edge import NO_EDGES, Columns, Edge, Edges, columns, together
from serving.edges.elsewhere import Seen
from serving.edges.growth import Growth
from serving.edges.popularity import Counted, ItemPopularity
from serving.edges.steps import Held
from serving.edges.stored_edges import StoredEdges
from serving.edges.unstored_changes import UnstoredChanges
from trainer.embedding.edges import Own
from trainer.graph.arrays import Int64s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing
from trainer.memory import give_back


class UserEdges:
    """Grows from the edge store in bulk and from the topic event by event."""

    def __init__(self, weighing: Weighing, held: Held = None) -> None:
        """`held`: the partitions whose users are held; `hold` changes it."""
        self._stored = StoredEdges(weighing, held)
        self._popularity = ItemPopularity()
        self._unstored = UnstoredChanges(self._stored, self._popularity)
        self._version = 0  # of the stored edges; a growth that began with another is of no use
        self._newest = 0  # epoch milliseconds of the newest stored edge

    @property
    def graph(self) -> InteractionGraph:
        """The edges of the store."""
        return self._stored.graph

    @property
    def watermark(self) -> Watermark:
        """How far the store was read."""
        return self._stored.watermark

    @property
    def changed(self) -> Mapping[str, Changed]:
        """Users whom the topic changed since the store was read, with all their edges."""
        return self._unstored.changed

    @property
    def unsettled(self) -> set[str]:
        """Users with events in several partitions, whose order the store will tell."""
        return self._unstored.unsettled

    @property
    def held(self) -> Held:
        """The partitions whose users are held here; None for all."""
        return self._stored.held

    @property
    def newest(self) -> int:
        """Epoch milliseconds of the newest stored edge, as of which strengths are."""
        return self._newest

    @property
    def n_elsewhere(self) -> int:
        """Users with new rows of partitions that other processes read."""
        return len(self._unstored.elsewhere)

    def has_news(self, store: EdgeStore) -> bool:
        """Whether the store has what was not read, of single users or of all, or the last reading
        failed half way.

        Raises:
            StoreError: the store cannot be read.
        """
        told = self._unstored
        begun = self._stored.is_half_read or bool(told.missing) or told.is_cut_stored()
        return begun or store.changed(self.watermark)

    def grow(self, store: EdgeStore) -> set[str]:
        """Read the store's new rows, and drop what the topic had told of them.

        Returns:
            The digests of the ids of users who were forgotten in them.

        Raises:
            StoreError: the store cannot be read.
        """
        digests: set[str] = set()
        for _ in self._grow(store, digests):
            pass
        return digests

    def hold(self, store: EdgeStore, held: Held, digests: set[str]) -> Iterator[None]:
        """Hold the users of these partitions alone, and read the store's new rows, a window at
        each step. The edges are of use after the last one.

        A user belongs to the partition of the user's newest event, and is held with all edges.

        Args:
            digests: those of the ids of users who were forgotten in the rows that are read are
                added.

        Raises:
            StoreError: the store cannot be read; it is to be called again.
        """
        is_first = not self.watermark.table
        if is_first:  # nothing was read: no row need be read twice
            self._stored.held = held
        before = self.held
        yield from self._grow(store, digests)
        if self.held != held:
            yield from self._gain(store, held, digests)
        if is_first or self.held != before:  # else few rows were read
            give_back()

    def read_anew(self, store: EdgeStore) -> set[str]:
        """Take all edges from a store that is another one than before.

        Returns:
            The digests of the ids of users who were forgotten in it.

        Raises:
            StoreError: the store cannot be read; the edges are what they were.
        """
        stored = self._stored.emptied()
        growth = Growth(stored, {}, self._unstored.log, set(), set(), self._version)
        if self.held is None or self.held:
            growth.run(store)
        mine = self._unstored.mine
        self._stored, self._unstored = stored, UnstoredChanges(stored, self._popularity)
        self._unstored.mine = mine
        self._version += 1
        self._count()
        return growth.result.digests if growth.result else set()

    def begin_growth(self) -> Growth:
        """A growth to be run on another thread and finished here."""
        return self._growth_of(self._stored.copy())

    def finish_growth(self, growth: Growth) -> set[str] | None:
        """Use what a growth has read, if the stored edges are still what it began with.

        Returns:
            The digests of the ids of users who were forgotten in it; None if it was of no use.
        """
        if growth.version != self._version or growth.result is None:
            return None
        growth.stored.graph.dampen(self.graph.weighing.dampened)
        self._stored = self._unstored.stored = growth.stored
        self._use(growth)
        return growth.result.digests

    def dampen(self, on: bool) -> None:
        """Give strengths as the model in use takes them (see trainer/graph/weights.py)."""
        self.graph.dampen(on)

    def begin(self, log: int, partition: int, offset: int) -> None:
        """The store has all of the partition before this offset, and so has the graph."""
        if log != self._unstored.log:
            self._unstored.begin(log)
            self._count()
        self._stored.watermark = self.watermark.begin(log, partition, offset)
        self._version += 1

    def apply(self, event: Event, partition: int, at: Position) -> None:
        """Take one event; a stretch of the topic that is read again changes nothing."""
        self._unstored.apply(event, partition, at)

    def expire(self, oldest: int) -> dict[str, int]:
        """Take out the edges whose last event is older than `oldest`, epoch milliseconds.

        Users who have others left are settled anew.

        Returns:
            Users who have none left, and the partition of the newest event of each.
        """
        touched = self._stored.expire(oldest)
        if touched:
            self._version += 1
        gone = self._unstored.expire(oldest, touched)
        self._count()
        return gone

    def read_here(self, partitions: Set[int]) -> None:
        """These partitions are read here from now on; before, all were.

        If there are others than before, the store was read to its end meanwhile.
        """
        self._unstored.mine = partitions
        self._unstored.elsewhere.clear()

    def see(self, seen: Seen) -> None:
        """Note what the store has of users whose rows come by partitions of other processes."""
        self._unstored.see(seen)

    def settle(self, users: Collection[str]) -> None:
        """The lists of these users, if they are held here, may be of older edges."""
        self._unstored.settled.update(users)

    def take_checked(self) -> set[str]:
        """Users with events in several partitions of whom the store has told, since the last call.

        Those of `take_settled` may be among them.
        """
        checked, self._unstored.checked = self._unstored.checked, set()
        return checked

    def take_settled(self) -> set[str]:
        """Users whose edges are others than the topic had told, and those of `settle`, since the
        last call."""
        settled, self._unstored.settled = self._unstored.settled, set()
        return settled

    def partition(self, user: str) -> int | None:
        """The partition of the user's newest event; None for a user whom `has` denies."""
        return self._unstored.partition(user)

    def has(self, user: str) -> bool:
        """Whether the user has come, and was not forgotten since, nor have all edges expired."""
        return self._unstored.has(user)

    def users_of_several(self) -> list[str]:
        """Users who are held and whose rows in the store, as it was read last, are of several
        partitions."""
        return self._stored.users_of_several()

    def is_away(self, user: str) -> bool:
        """Whether another process writes the user's list, as far as the store has told."""
        return self._unstored.is_away(user)

    def is_missing(self, user: str) -> bool:
        """Whether the user has edges in the store that are not here yet."""
        return user in self._unstored.missing

    def unknown(self, users: Sequence[str]) -> list[str]:
        """Those of the users of whom there is nothing here, and no row in the store that is another
        process's to know."""
        gone = [user for user in users if not self.has(user)]
        strangers = set(self.strangers(gone))
        return [user for user in gone if user not in strangers]

    def strangers(self, users: Sequence[str]) -> list[str]:
        """Those of the users who have rows in the store and are not held here, and now and then
        another one. Safe for several threads."""
        return self._stored.strangers.among(users)

    def likes(self, user: str, item: str) -> bool:
        """Whether the user has an edge of some strength to the item."""
        edge = self._unstored.edges(user).get(item)
        return edge is not None and edge.weight > 0

    def items(self, user: str) -> Edges:
        """The user's edges with their strengths, as of the newest event in the graph."""
        edges = self._unstored.edges(user).items()
        return {item: Edge(edge.timestamp, self._strength(edge)) for item, edge in edges}

    def weights(self, user: str) -> Edges:
        """The user's edges with their weights."""
        return self._unstored.edges(user)

    def told(self, user: str) -> Edges | None:
        """All edges of a user whom the topic changed since the store was read, as they are now;
        None for any other user."""
        change = self.changed.get(user)
        return dict(change.items) if change else None

    def block(
        self,
        users: Sequence[str],
        of_graph: Int64s,
        of_id: Mapping[str, int],
        told: Sequence[Edges | None] | None = None,
    ) -> tuple[Own, Int64s]:
        """The edges of users with their strengths, in the numbering of a model's items.

        Args:
            of_graph: int64 [items of the graph], the model's number of each, -1 for none;
            of_id: the same by id.
            told: what `told` gave for each user some events ago, for the edges of then; the store
                was not read since.

        Returns:
            The edges, items without a number as -1; and int64 [users], epoch milliseconds of each
            user's newest edge, 0 without one.
        """
        graph, strengths, starts = self.graph, self.graph.strengths, self._stored.starts
        if told is None:
            changes = map(self.changed.get, users)
            told = [change.items if change else None for change in changes]
        told_edges = [edges for edges in told if edges is not None]
        of_told = columns(told_edges, of_id, graph.weighing, self._newest)
        made: list[Columns] = []
        event_at = np.zeros(len(users), np.int64)
        for row, (user, edges) in enumerate(zip(users, told, strict=True)):
            if edges is not None:
                own_columns, event_at[row] = next(of_told)
                made.append(own_columns)
            elif (number := self._stored.numbers.get(user)) is not None:
                own = slice(starts[number], starts[number + 1])
                made.append((of_graph[graph.items[own]], strengths[own], graph.ages[own]))
                event_at[row] = graph.timestamps[own].max(initial=0)
            else:
                made.append(NO_EDGES)
        return together(made), event_at

    @property
    def n_users(self) -> int:
        """Users with or without an edge."""
        return len(self._stored.numbers) + len(self._unstored.new_users())

    def users(self, partitions: Set[int] | None = None) -> list[str]:
        """Users with or without an edge, those that only the topic knows last.

        Args:
            partitions: only users whose newest event is in one of these.
        """
        if partitions is None:
            return [*self._stored.numbers, *self._unstored.new_users()]
        told = self.changed
        stored = (user for user in self._stored.users_of(partitions) if user not in told)
        new = (u for u, change in told.items() if change.partition in partitions)
        found = [user for user in (*stored, *new) if self.has(user)]
        if self.n_elsewhere:
            return [user for user in found if self.partition(user) in partitions]
        return found

    def popular(self, n: int) -> Counted:
        """At most n items, recently popular ones first, and their decayed number of edges."""
        return self._popularity.top(n, self.graph.item_ids.values)

    def _strength(self, edge: Edge) -> float:
        return self.graph.weighing.strength(edge.weight, edge.timestamp, self._newest)

    def _grow(self, store: EdgeStore, digests: set[str]) -> Iterator[None]:
        """As `grow`, a window at each step."""
        if not self.has_news(store):
            return
        growth = self._growth_of(self._stored)
        try:
            yield from growth.steps(store)
        finally:
            self._use(growth)
        digests |= growth.result.digests if growth.result else set()

    def _gain(self, store: EdgeStore, held: Held, digests: set[str]) -> Iterator[None]:
        """As `hold`, where nothing is new."""
        stored, told = self._stored.copy(), self._unstored.wanted()
        forgotten, to_be_erased = self._unstored.forgotten(), self._unstored.to_be_erased()
        digests |= yield from stored.gain(store, held, told, forgotten, to_be_erased)
        stored.held = held
        stored.is_used()  # before `leave`, which makes some of them strangers again
        if held is not None:
            stored.strangers.add(self._unstored.leave(held))
            gone = told - self.changed.keys()
            own = (set(stored.users_of(held)) - gone) | self.changed.keys()
            stored.leave(stored.numbers.keys() - own)
        self._stored = self._unstored.stored = stored
        self._unstored.read_later(to_be_erased | (forgotten & self.changed.keys()))
        self._version += 1
        self._count()

    def _growth_of(self, stored: StoredEdges) -> Growth:
        told = self._unstored
        missing = set(told.missing)
        return Growth(stored, told.cut(), told.log, told.wanted(), missing, self._version)

    def _use(self, growth: Growth) -> None:
        """The stored edges have grown."""
        self._version += 1
        self._stored.is_used()
        result, before = growth.result, self.changed.keys()
        self._unstored.drop_stored({u: growth.cut[u] for u in result.read_again} if result else {})
        if result:
            self._unstored.read_whole(result.moved, growth.missing)
        self._leave_others(before - self.changed.keys())
        self._count()

    def _leave_others(self, users: Set[str]) -> None:
        """Hold those of these users no more who are other processes', as the store tells."""
        held, partition = self.held, self._stored.partition
        if held is not None:
            self._stored.leave({u for u in users if partition(u) not in (None, *held)})

    def _count(self) -> None:
        """Derive anew what depends on the stored edges."""
        self._newest = int(self.graph.timestamps.max(initial=0))
        self._popularity.recount(self.graph)
        self._unstored.count()
