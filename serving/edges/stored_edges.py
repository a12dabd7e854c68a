"""The users' edges as the edge store had them when it was read last.

A process that reads some of the topic's partitions holds the users whose newest rows are of these,
each with all edges, by whichever partitions their events came. What is read of new rows are those
of these partitions, and of all others the users alone. A user with rows of both is read again as a
whole, and stays only if the newest row is of a partition that is held.

This file is longer than 250 lines because a user's number, partition and edges change together.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Set
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.news import News
from consumer.edge.store import EdgeStore, Watermark
from consumer.edge.traces import Notice, Places, digest, latest, split
from serving.edges.changes import Positions, are_before
from serving.edges.edge import Edge, Edges
from serving.edges.steps import Held, gained, in_parts, steps
from serving.edges.strangers import SEVERAL, Strangers
from trainer.graph.arrays import Int32s, Int64s
from trainer.graph.growth import joined, read_again
from trainer.graph.ids import Ids
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing

DERIVED = {"ages", "strengths"}  # of the graph, which take long to make
FEW_BLANKS = 1_000  # numbers without a user that are kept in any case


class GrowthResult(NamedTuple):
    """What was read of the edge store.

    digests: of the ids of users who were forgotten; read_again: users whose edges were all read
    again; moved: those who are held and were read again as they have rows of other partitions.
    """

    digests: set[str]
    read_again: set[str]
    moved: set[str]


class StoredEdges:
    """A graph, the number of each user in it, and the Kafka partition of each user's newest row.

    is_half_read: whether the last growth failed, so that there is something to be read or to be
    told, also where the store has nothing new. held: the partitions whose users are held here;
    strangers: all other users of whom the store has rows.
    """

    def __init__(self, weighing: Weighing, held: Held = None) -> None:
        self.graph = InteractionGraph(weighing=weighing)
        self.watermark = Watermark()
        self.numbers: dict[str, int] = {}
        self.starts: Int64s = np.zeros(1, np.int64)  # of each user's edges in the graph
        self.is_half_read = False
        self.held = held
        self.strangers = Strangers()
        self._numbered = 0  # users of the graph that are in `numbers`, or have no id any more
        self._items: list[str] = []  # ids of the graph's items; Arrow is slow at a few at a time
        self._partitions: Int32s = np.empty(0, np.int32)
        self._several = np.empty(0, np.bool_)  # whether a user's rows are of several partitions
        self._digests: set[str] = set()  # of users who are forgotten; nobody was told yet
        # Of users who are forgotten, by digest: notices of the newest log whose offsets were not
        # read yet.
        self._noticed: dict[str, Places] = {}
        self._mixed: set[str] = set()  # users who are to be read again as a whole
        self._own: set[str] = set()  # users who are strangers no more since they were read again

    def copy(self) -> StoredEdges:
        """The same, to be grown on another thread: it shares arrays, which nobody changes, and the
        strangers. While the copy grows, users are added to the shared strangers, where they stay
        also if the copy is thrown away; none is taken out before `is_used`."""
        graph = self.graph
        same = StoredEdges(graph.weighing, self.held)
        ids = Ids(graph.user_ids.values), Ids(graph.item_ids.values)
        same.graph = replace(graph, user_ids=ids[0], item_ids=ids[1])
        for name in DERIVED & graph.__dict__.keys():  # where nothing is new, they stay right
            same.graph.__dict__[name] = graph.__dict__[name]
        same.watermark, same.numbers, same.starts = self.watermark, dict(self.numbers), self.starts
        same._partitions, same._several = self._partitions, self._several
        same._digests, same._mixed = set(self._digests), set(self._mixed)
        same._items, same._numbered = list(self._items), self._numbered
        same.strangers, same.is_half_read = self.strangers, self.is_half_read
        same._own, same._noticed = set(self._own), dict(self._noticed)
        return same

    def emptied(self) -> StoredEdges:
        """Without edges, for another store; the users who were forgotten are still to be told."""
        other = StoredEdges(self.graph.weighing, self.held)
        other._digests = set(self._digests)
        return other

    def grow(
        self,
        store: EdgeStore,
        cut: Mapping[str, Positions],
        log: int,
        wanted: Set[str] = frozenset(),
    ) -> Generator[None, None, GrowthResult]:
        """Read the store's new rows, a window at each step.

        Args:
            cut: users who were forgotten, and places in the log number `log`: once the store has
                all of a user's, the user's edges are read again.
            wanted: users who are held here, whatever the partition of their newest row is.

        Raises:
            StoreError: the store cannot be read; what was read until then stays, and the next
                call returns the digests with others.
        """
        self.is_half_read = True
        try:
            for step in steps(self.graph, store, self.watermark, self.held):
                self._digests |= step.notices.keys()
                self._note_partitions(step.rows)
                if self.held is not None:
                    self._meet(step.others, wanted)
                self.watermark = step.watermark
                self._note_notices(step.notices)
                yield
            offsets = self.watermark.offsets(log)
            users = {user for user, places in cut.items() if are_before(places, offsets)}
            unknown = [user for user in wanted if user not in self.numbers]
            mixed = self._mixed | set(self.strangers.among(unknown))
            self._read_again(store, users | mixed, wanted)
        finally:
            self._number_users(0 if self._digests else self._numbered)
            self._derive()
        self.is_half_read = False
        digests, self._digests = self._digests, set()
        return GrowthResult(digests, users, {user for user in mixed if user in self.numbers})

    def gain(
        self,
        store: EdgeStore,
        held: Held,
        wanted: Set[str],
        forgotten: Set[str],
        to_be_erased: Set[str],
    ) -> Generator[None, None, set[str]]:
        """Read the users of further partitions up to the watermark, a window at each step.

        If each stranger has rows of exactly one partition, and that one was not held, the rows of
        the gained partitions tell all. Else the users of all other rows are read too, and the
        strangers are found anew: those before may have been forgotten since.

        Args:
            held: the partitions that are held from now on; users of others that were held before
                stay until `leave`.
            wanted: as for `grow`.
            forgotten, to_be_erased: what the methods of UnstoredChanges give that are called so.

        Returns:
            The digests of users who were forgotten. A list of one of them may be there still, as
            nobody held the user who knew of it.

        Raises:
            StoreError: the store cannot be read; this object is of no use then.
        """
        digests: set[str] = set()
        if self.held is None or (held is not None and held <= self.held):
            return digests
        news, known, first = store.news(self.watermark), self.graph.user_ids.values, self._numbered
        inside, were_held = gained(self.held, held), self.held
        self.held = held
        found = news.shared_before(inside, 0 if held is None else len(held - were_held))
        for more in joined(found, self.graph):
            if not len(more):  # those of a window that come with the next one's
                yield
                continue
            rows, notices = split(more)
            digests |= notices
            rows = rows.filter(pc.invert(pc.is_in(rows["user_id"], value_set=known)))
            self._note_partitions(rows, self.graph.extend(rows))
            self._number_users(self._numbered)
            yield
        self.forget(to_be_erased)
        new = [user for user, number in self.numbers.items() if number >= first]
        again = {user for user in new if user in forgotten}
        if self.strangers.have_rows_of(were_held):
            again |= yield from self._find_strangers(news, inside, first)
        else:
            self.strangers = Strangers() if held is None else self.strangers.without(held)
        self.strangers.discard(to_be_erased)
        again |= set(self.strangers.among(new))
        self._read_again(store, again - to_be_erased, wanted)
        if held is None:
            self.strangers = Strangers()
        self._derive()
        return digests

    def leave(self, users: Collection[str]) -> None:
        """Hold these users no more."""
        if not users:
            return
        there = [user for user in users if user in self.numbers]
        numbers = [self.numbers[user] for user in there]
        of = np.where(self._several[numbers], SEVERAL, self._partitions[numbers])
        self._take_out(there)
        self.strangers.add(there, of.astype(np.int32))
        self._derive()

    def is_used(self) -> None:
        """These are the edges that lists are made of from now on."""
        if self._own:
            self.strangers.discard(self._own)
            self._own = set()

    def prepare(self) -> None:
        """Make what the graph derives from its edges when it is first asked for."""
        self.graph.prepare()

    def has_forgets(self, user: str, log: int, places: Positions) -> bool:
        """Whether the store, as it was read, has these forgets of the user: their offsets, or the
        notices of them, which the store has before the offsets.

        Args:
            places: of forgets in the log of this number, at least one.
        """
        offsets, noticed = self.watermark.offsets(log), self._noticed.get(digest(user), {})
        return all(
            at.offset < offsets.get(partition, 0) or at.offset <= noticed.get((log, partition), -1)
            for partition, at in places.items()
        )

    def forget(self, users: Collection[str]) -> None:
        """Take out users."""
        there = [user for user in users if user in self.numbers]
        if there:
            self._take_out(there)
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

    def users_of_several(self) -> list[str]:
        """The users whose rows are of several partitions."""
        several = self._several
        if not several.any():
            return []
        return [user for user, number in self.numbers.items() if several[number]]

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

    def _meet(self, others: pa.Table, wanted: Set[str]) -> None:
        """Find who has rows both of partitions that are held and of others."""
        new = self._number_users(self._numbered)
        for users, partitions in in_parts(others):
            known = {user for user in users if user in self.numbers or user in wanted}
            self._mixed |= known
            if known:
                unknown = np.array([user not in known for user in users])
                users, partitions = [*compress(users, unknown)], partitions[unknown]
            self.strangers.add(users, partitions)
        self._mixed.update(self.strangers.among(new))

    def _find_strangers(
        self, news: News, inside: pc.Expression, first: int
    ) -> Generator[None, None, set[str]]:
        """Read who has rows of other partitions.

        Args:
            inside: the condition for rows that were read just now; first: users of these rows have
                this number or a later one.

        Returns:
            Those of them who are to be held here, and were not: any, if all partitions are held.
        """
        self.strangers, left = Strangers(), set[str]()
        for others in news.others_before(inside):
            for users, partitions in in_parts(others):
                new = np.array([self.numbers.get(user, first) >= first for user in users])
                strangers = [*compress(users, new)]
                self.strangers.add(strangers, partitions[new])
                if self.held is None:
                    left.update(strangers)
            yield
        return left

    def _read_again(self, store: EdgeStore, users: Collection[str], wanted: Set[str]) -> None:
        """Take all edges of these users from the store, as of the watermark."""
        if not users:
            return
        if self.held is None:
            self._note_partitions(read_again(self.graph, store, self.watermark, users))
            self._number_users(self._numbered)
            return
        parts = store.news(self.watermark).rows_before(users)
        self._mixed.update(users)  # where that fails half way, all of it is read once more
        self._take_out(users)
        for rows in parts:
            self._note_partitions(rows, self.graph.extend(rows))
        self._number_users(self._numbered)
        found = [user for user in users if user in self.numbers]
        own = {u for u in found if u in wanted or self.partition(u) in self.held}
        self._own |= own | (set(users) - set(found))
        self.leave([user for user in found if user not in own])
        self._mixed.clear()

    def _take_out(self, users: Collection[str]) -> None:
        numbers = [self.numbers.pop(user) for user in users if user in self.numbers]
        self.graph.forget(numbers)

    def _number_users(self, known: int) -> list[str]:
        """Number the users of the graph from number `known` on; returns their ids."""
        if not known:
            self.numbers.clear()
        new = self.graph.user_ids.values[known:].to_pylist()
        self._numbered = known + len(new)
        self.numbers.update(zip(new, range(known, self._numbered), strict=True))
        self.numbers.pop("", None)  # users who are forgotten
        return [user for user in new if user]

    def _derive(self) -> None:
        """Make anew what depends on the graph, and give up numbers that nobody has any more."""
        if self.graph.n_users > 2 * len(self.numbers) + FEW_BLANKS:
            kept = np.sort(np.fromiter(self.numbers.values(), np.int64, len(self.numbers)))
            self.graph.keep_users(kept)
            self._partitions, self._several = self._partitions[kept], self._several[kept]
            self._number_users(0)
        self._items += self.graph.item_ids.values[len(self._items) :].to_pylist()
        self.starts = self.graph.starts

    def _note_notices(self, notices: Mapping[str, Notice]) -> None:
        """Remember who is forgotten, and drop what the offsets tell by now, and older logs."""
        for user, notice in notices.items():
            self._noticed[user] = latest(self._noticed.get(user, {}), notice.places)
        newest = max(self.watermark.logs, default=0)
        offsets, kept = self.watermark.offsets(newest), dict[str, Places]()
        for user, places in self._noticed.items():
            new = {
                (log, partition): offset
                for (log, partition), offset in places.items()
                if log > newest or (log == newest and offset >= offsets.get(partition, 0))
            }
            if new:
                kept[user] = new
        self._noticed = kept

    def _note_partitions(self, rows: pa.Table, users: Int32s | None = None) -> None:
        """Remember the partition of each user's newest row, and who has rows in several.

        Args:
            users: int32 [rows], the number of each row's user, if that is known.
        """
        more = self.graph.n_users - len(self._partitions)
        before = np.concatenate([self._partitions, np.full(more, -1, np.int32)])
        self._partitions = before.copy()
        self._several = np.concatenate([self._several, np.zeros(more, np.bool_)])
        if len(rows):
            if users is None:
                users = self.graph.user_ids.grow(rows["user_id"])
            of_rows = rows["kafka_partition"].to_numpy()
            self._partitions[users] = of_rows  # of several rows the last one counts
            new = np.flatnonzero(before[users] < 0)[::-1]
            before[users[new]] = of_rows[new]  # and here the first one
            self._several[users[before[users] != of_rows]] = True
