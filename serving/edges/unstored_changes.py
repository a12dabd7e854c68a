"""What the topic has told of the users since the edge store was read, event by event.

A user's events are in the order of the topic as long as all are in one partition. Where they are in
several, their order is known once the edge store has them; until then it is the order in which
they came here. Events of partitions that other processes read come here by the edge store alone.

This file is longer than 250 lines because forgets, expired edges and users who move change the same
few dictionaries.
"""

from __future__ import annotations

import time
from collections.abc import Set

import numpy as np

from consumer.event.json import FORGET, REMOVE, Event
from consumer.event.rules import HERE
from consumer.ingest.decode import Position
from serving.edges.changes import Changed, Positions, are_before
from serving.edges.edge import Edge, Edges
from serving.edges.elsewhere import Elsewhere, Seen
from serving.edges.popularity import ItemPopularity
from serving.edges.stored_edges import StoredEdges


class UnstoredChanges:
    """The users whom the topic changed, above the stored edges.

    changed: these users, with all their edges. unsettled: users with events in several partitions.
    checked: users of these whom the store has told of by now. settled: users who turned out to have
    other edges in the store than the topic had told here. elsewhere: users with rows of partitions
    that other processes read. missing: users who came here by an event and have edges in the store
    that were not read here. log: the number of the log whose events are taken. mine: the
    partitions that are read here, None where all are.
    """

    def __init__(self, stored: StoredEdges, popularity: ItemPopularity) -> None:
        self.changed: dict[str, Changed] = {}
        self.unsettled: set[str] = set()
        self.checked: set[str] = set()
        self.settled: set[str] = set()
        self.missing: set[str] = set()
        self.elsewhere = Elsewhere()
        self.mine: Set[int] | None = None
        self.log = 0
        self.stored = stored
        self._popularity = popularity
        # Users who were forgotten, and whose edges are read again once the store has the forgets.
        self._cut: set[str] = set()
        # The places of forgets of all partitions, until a reading of the store has them.
        self._forgets: dict[str, Positions] = {}

    def edges(self, user: str) -> Edges:
        """The user's edges as of now, with their weights."""
        change = self.changed.get(user)
        return change.items if change else self.stored.of(user)

    def has(self, user: str) -> bool:
        """Whether the user has come, and was not forgotten since, nor have all edges expired."""
        change = self.changed.get(user)
        return not change.gone if change else user in self.stored.numbers

    def partition(self, user: str) -> int | None:
        """The partition of the user's newest event; None for a user whom `has` denies."""
        if not self.has(user):
            return None
        change = self.changed.get(user)
        seen = self.elsewhere.partition(user, change, self.log)
        if seen is not None:
            return seen
        return change.partition if change else self.stored.partition(user)

    def is_away(self, user: str) -> bool:
        """Whether another process writes the user's list, as far as the store has told."""
        partition = self.partition(user) if self.mine is not None else None
        return partition is not None and partition not in (self.mine or ())

    def new_users(self) -> list[str]:
        """Users whom only the topic has told of."""
        known = self.stored.numbers
        return [u for u, change in self.changed.items() if u not in known and not change.gone]

    def begin(self, log: int) -> None:
        """Take the events of another log: what only the last one has told is gone."""
        forgotten = self.forgotten() | self._forgets.keys()
        self.log = log
        self.settled |= self.changed.keys()
        self.changed.clear()
        self.unsettled.clear()
        self.missing.clear()
        self.elsewhere.clear()
        self._forgets.clear()
        self.read_later(forgotten)  # the consumer may not have read the forgets

    def apply(self, event: Event, partition: int, at: Position) -> None:
        """Take one event; a stretch of the topic that is read again changes nothing."""
        user = event.user_id
        if at.offset < self.stored.watermark.offsets(self.log).get(partition, 0):
            return  # the stored edges have it
        change = self.changed.get(user)
        own = self.partition(user) if change is None else change.partition
        several = bool(change and change.elsewhere) or user in self.elsewhere
        if event.type == FORGET:
            everywhere = event.item_id != HERE
            others = {own, self.stored.partition(user)} - {None, partition}
            several |= (everywhere and bool(others)) or self.stored.is_of_several(user)
            self._forget(user, partition, at, own, several, everywhere)
            return
        if several or own not in (None, partition):
            self.unsettled.add(user)
        if change is None:
            change = self.changed[user] = Changed(self.stored.of(user), partition, at)
            comes = change.is_new = user not in self.stored.numbers
        else:
            comes = change.gone
            if not change.move(partition, at):
                return
        if comes and user in self.stored.strangers:
            self.missing.add(user)
            self.unsettled.add(user)
        change.gone = False
        self._change_edge(change, event)

    def wanted(self) -> set[str]:
        """Users who are here by the newest event, whatever the store says so far."""
        return {user for user, change in self.changed.items() if not change.gone}

    def forgotten(self) -> set[str]:
        """Users who were forgotten here, whose rows the store may still have."""
        return {user for user, change in self.changed.items() if change.gone} | self._cut

    def to_be_erased(self) -> set[str]:
        """Users of whom the consumer will take out all rows that were read of the store: a forget
        of all partitions came here that the store, as it was read, does not have.

        Where a user had no row, the store has no notice of the forget. Then it may have the forget,
        and newer rows of the user, before the offset. So users whose rows are dropped for it are to
        be in `cut`.
        """
        if any(log > self.log for log in self.stored.watermark.logs):
            return set()  # what is told here is of a topic that was made anew since
        forgets, is_stored = self._forgets.items(), self.stored.has_forgets
        return {user for user, places in forgets if not is_stored(user, self.log, places)}

    def leave(self, partitions: Set[int]) -> list[str]:
        """Drop users whose newest event is of none of these partitions, which alone are held.

        Returns:
            Those of them who were forgotten and may have rows in the store that stay there.
        """
        kept = {user: c for user, c in self.changed.items() if c.partition in partitions}
        gone = self.changed.keys() - kept.keys()
        cut = self._cut & gone
        for users in (self.unsettled, self.missing, self._cut):
            users -= gone
        self.changed = kept
        return [*cut - self.to_be_erased()]

    def read_later(self, users: Set[str]) -> None:
        """Read these users again once the store has their forgets, if any is not stored yet."""
        self._cut |= users
        self.unsettled |= users

    def read_whole(self, moved: Set[str], missing: Set[str]) -> None:
        """The store was read for users with rows of partitions that other processes read.

        Args:
            moved: the stored edges of these are whole now. What the topic has told of one who was
                new here is put above them until the store has that too, and tells the order.
            missing: those who were in `missing` when the reading began.
        """
        for user in moved:
            change = self.changed.get(user)
            if change:
                self.unsettled.add(user)
                if change.is_new:
                    change.items, change.is_new = self.stored.of(user) | change.items, False
        self.missing -= missing
        self.settled |= moved | missing

    def see(self, seen: Seen) -> None:
        """Note what the store has of users whose rows come by partitions of other processes.

        Those of them whose newest rows are of partitions read here are unsettled.
        """
        if self.stored.held is not None:
            # `seen` names only the partition of a user's newest row: a gain reads the store to the
            # end first, and so hears of other partitions.
            others = {user: p for user, p in seen.partitions.items() if not self.has(user)}
            partitions = np.fromiter(others.values(), np.int32, len(others))
            self.stored.strangers.add([*others], partitions)
            known = {user: p for user, p in seen.partitions.items() if user not in others}
            seen = seen._replace(partitions=known)
        self.elsewhere.see(seen)
        here = (user for user in seen.partitions if self.has(user) and not self.is_away(user))
        self.unsettled.update(here)
        self._check()

    def expire(self, oldest: int, touched: dict[str, int]) -> dict[str, int]:
        """Take out edges that are older than `oldest`; as `UserEdges.expire`.

        Args:
            touched: users who lost a stored edge, and the partition of each.
        """
        touched = dict(touched)
        for user, change in self.changed.items():
            old = [item for item, edge in change.items.items() if edge.timestamp < oldest]
            for item in old:
                del change.items[item]
            if old or user in touched:
                touched[user] = change.partition
        gone = {}
        for user, partition in touched.items():
            told = self.changed.get(user)
            if told.items if told else user in self.stored.numbers:
                self.settled.add(user)
                continue
            seen = self.elsewhere.partition(user, told, self.log)
            gone[user] = partition if seen is None else seen
            if told:
                told.gone = True
        return gone if touched else {}

    def is_cut_stored(self) -> bool:
        """Whether the store, as it was read, has all that `cut` waits for of a user."""
        offsets = self.stored.watermark.offsets(self.log)
        return any(are_before(places, offsets) for places in self.cut().values())

    def cut(self) -> dict[str, Positions]:
        """Users who were forgotten and are to be read again, once the store has these places."""
        made = {user: self._forgets.get(user, {}) for user in self._cut}
        for user in made.keys() & self.changed.keys():
            made[user] = {**made[user], **self.changed[user].positions}
        return made

    def drop_stored(self, cut: dict[str, Positions]) -> None:
        """Drop what the stored edges, which have grown, hold by now.

        Args:
            cut: users whose edges were read again, and the places that were known then.
        """
        now = self.cut()
        again = {user for user, places in cut.items() if now.get(user) == places}
        self._cut -= again
        self.settled |= again - self.changed.keys()
        to_be_erased = self.to_be_erased()
        self._forgets = {user: self._forgets[user] for user in to_be_erased}
        self.read_later({user for user in to_be_erased if user in self.stored.numbers})
        self.stored.forget(to_be_erased)  # the growth began before their forgets came
        offsets = self.stored.watermark.offsets(self.log)
        kept = {}
        for user, change in self.changed.items():
            if not are_before(change.positions, offsets):
                kept[user] = change
            elif user in self.unsettled and change.items != self.stored.of(user):
                self.settled.add(user)
        self.changed = kept
        self._check()

    def count(self) -> None:
        """Count all changes in the popularity of items."""
        for user, change in self.changed.items():
            stored = self.stored.of(user)
            for edges, others, sign in ((stored, change.items, -1), (change.items, stored, 1)):
                for item, edge in edges.items():
                    if others.get(item) != edge:
                        self._popularity.change(item, edge, sign)

    def _check(self) -> None:
        """Note of which unsettled users the stored edges have all by now."""
        self.elsewhere.drop_stored(self.stored.watermark)
        waiting = self.changed.keys() | self._cut
        told = {u for u in self.unsettled if u not in waiting and u not in self.elsewhere}
        self.unsettled -= told
        self.checked |= told

    def _forget(
        self,
        user: str,
        partition: int,
        at: Position,
        own: int | None,
        several: bool,
        everywhere: bool,
    ) -> None:
        """Forget the user.

        Args:
            own: the partition of the user's newest event, None if there is none: what came since in
                it is not meant by a forget of another partition alone.
            several: whether the user has events in several partitions.
            everywhere: whether all partitions are meant; if not, there is a forget in each.
        """
        change = self.changed.get(user)
        if everywhere or own is None or own == partition:
            if change is None or change.move(partition, at):
                for item, edge in self.edges(user).items():
                    self._popularity.change(item, edge, -1)
                self.stored.forget([user])
                if several:
                    self._cut.add(user)
                if everywhere:
                    self._forgets[user] = {**self._forgets.get(user, {}), partition: at}
                elsewhere = change.elsewhere if change else None
                self.changed[user] = Changed({}, partition, at, True, elsewhere)
        elif several:
            change = change or Changed(self.stored.of(user), own, Position(-1, 0))
            change.elsewhere = (change.elsewhere or {}) | {partition: at}
            self.changed[user] = change
        if several:
            self.unsettled.add(user)

    def _change_edge(self, change: Changed, event: Event) -> None:
        old = change.items.pop(event.item_id, None)
        if old:
            self._popularity.change(event.item_id, old, -1)
        if event.type == REMOVE:
            return
        timestamp = min(event.timestamp, int(time.time() * 1000))  # as the graph takes it
        weighing = self.stored.graph.weighing
        weight = event.interaction * weighing.factor(event.type)
        if old:
            weight = weighing.after(old.weight, old.timestamp, weight, timestamp)
        edge = change.items[event.item_id] = Edge(timestamp, weight)
        self._popularity.add(event.item_id, edge)
