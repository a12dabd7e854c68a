"""The user-item graph as arrays: grows from rows of the edge store, never renumbers a node.

An edge is the latest state of a (user, item) pair in the order of the rows: its weight comes from
the pair's events (weights.py), and a row of type `remove` takes it out. A row of type `forget`
takes out a user: its edges, and its id, of which the node's number is left.

Where several ranks train, each has the edges of its own users; items have the same numbers on all
of them from the moment at which they have agreed (numbering.py).

This file is longer than 250 lines because all changes of the graph keep the same columns together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.traces import matching, split
from consumer.event.rules import LARGEST, REMOVE
from trainer.graph import order
from trainer.graph.arrays import Bools, Float32s, Int32s, Int64s
from trainer.graph.event_times import happened_at
from trainer.graph.ids import Ids
from trainer.graph.keys import keys_of, places_in
from trainer.graph.own_users import are_own
from trainer.graph.user_order import one_in
from trainer.graph.weights import Pairs, Weighing
from trainer.ranks import ALONE, Ranks

COLUMNS = ("users", "items", "weights", "timestamps", "places")  # of the edges


def _int32s() -> Int32s:
    return np.empty(0, np.int32)


def _int64s() -> Int64s:
    return np.empty(0, np.int64)


@dataclass
class InteractionGraph:
    """Edges sorted by user, then item; no pair twice.

    users, items: int32 [edges]; weights: float32 [edges], as `weighing` makes them;
    timestamps: int64 [edges], epoch milliseconds of the last event, none in the future; places:
    int64 [edges], where that event was among all events read. until: the moment, in epoch
    milliseconds, that strengths are of; None: the newest event's. ranks: who has the other users.
    """

    user_ids: Ids = field(default_factory=Ids)
    item_ids: Ids = field(default_factory=Ids)
    users: Int32s = field(default_factory=_int32s)
    items: Int32s = field(default_factory=_int32s)
    weights: Float32s = field(default_factory=lambda: np.empty(0, np.float32))
    timestamps: Int64s = field(default_factory=_int64s)
    places: Int64s = field(default_factory=_int64s)
    weighing: Weighing = field(default_factory=Weighing)
    until: int | None = None
    ranks: Ranks = field(default=ALONE, repr=False, compare=False)
    _read: int = field(default=0, repr=False)  # events so far
    _starts: Int64s | None = field(default=None, init=False, repr=False, compare=False)
    # `ages` as they were made last, and -1 for users who have changed since: to make all anew is to
    # sort all.
    _aged: Int64s | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.places) != len(self):
            self.places = np.arange(len(self))
            self._read = len(self)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_users(self) -> int:
        """Users seen, those without an edge included."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items seen, those without an edge included."""
        return len(self.item_ids)

    @property
    def keys(self) -> Int64s:
        """One number for each edge, ascending; int64 [edges]."""
        return keys_of(self.users, self.items)

    def extend(self, rows: pa.Table) -> Int32s:
        """Add rows of the edge store's schema, in their order, to the graph in place.

        Returns:
            The number of the user of each row that is not of type `forget`, int32.
        """
        rows, digests = split(rows)
        self.forget(matching(self.user_ids.values, digests))
        if not len(rows):
            return np.empty(0, np.int32)
        users = self.user_ids.grow(rows["user_id"])
        interactions = np.clip(rows["interaction"].to_numpy(), -LARGEST, LARGEST)
        new = Pairs(
            keys_of(users, self.item_ids.grow(rows["item_id"])),
            interactions.astype(np.float32) * self.weighing.factors(rows["type"]),
            happened_at(rows),
            self._read + np.arange(len(rows)),
        )
        self._read += len(rows)
        removals = pc.equal(rows["type"], REMOVE).combine_chunks().to_numpy(zero_copy_only=False)
        # The edges of users before the first of these stay as they are.
        same = int(np.searchsorted(self.users, users.min()))
        keys = keys_of(self.users[same:], self.items[same:])
        known = places_in(keys, np.sort(new.keys))
        old = same + known
        before = Pairs(keys[known], self.weights[old], self.timestamps[old], self.places[old])
        removed = np.concatenate([np.zeros(len(old), np.bool_), removals])
        merged = self.weighing.merge(before.then(new), removed)
        at = same + np.searchsorted(np.delete(keys, known), merged.keys)
        del keys

        made: dict[str, npt.NDArray[Any]] = {
            "users": (merged.keys >> 32).astype(np.int32),
            "items": (merged.keys & 0xFFFFFFFF).astype(np.int32),
            "weights": merged.weights,
            "timestamps": merged.timestamps,
            "places": merged.places,
        }
        aged = self._drop_derived()
        if aged is not None:
            changed = np.zeros(self.n_users, np.bool_)
            changed[users] = True
            aged = np.where(changed[self.users], -1, aged)
            self._aged = np.insert(np.delete(aged, old), at, -1)
        for name, column in made.items():
            setattr(self, name, np.insert(np.delete(getattr(self, name), old), at, column))
        return users

    @cached_property
    def strengths(self) -> Float32s:
        """What the filters take an edge for, float32 [edges].

        The weight, decayed to the graph's newest event; 0 where that is negative: a filter spreads
        what users liked, and such an edge only says what not to recommend again.
        """
        until = int(self.timestamps.max(initial=0)) if self.until is None else self.until
        return self.weighing.strengths(self.weights, self.timestamps, until)

    def forget(self, users: list[int]) -> None:
        """Take out these user numbers' edges and ids; an id that comes again is a new user."""
        if not users:
            return
        self.user_ids.blank(users)
        kept, newest = ~np.isin(self.users, users), self.timestamps.max(initial=0)
        strengths = self.__dict__.get("strengths")
        aged = self._keep(kept)
        self._aged = None if aged is None else aged[kept]
        if strengths is not None and self.timestamps.max(initial=0) == newest:
            self.strengths = strengths[kept]

    def dampened(self, on: bool) -> InteractionGraph:
        """The same edges with strengths that are dampened or are not (see weights.py)."""
        if self.weighing.dampened == on:
            return self
        return replace(self, weighing=replace(self.weighing, dampened=on))

    def dampen(self, on: bool) -> None:
        """Make it so in place."""
        if self.weighing.dampened != on:
            self.weighing = replace(self.weighing, dampened=on)
            self._aged = self._drop_derived()

    def keep_users(self, numbers: Int64s) -> None:
        """Renumber these users from 0 on in their order, in place; no other user has an edge.

        Args:
            numbers: int64 [users to be kept], ascending.
        """
        places = np.full(self.n_users, -1, np.int32)
        places[numbers] = np.arange(len(numbers), dtype=np.int32)
        strengths = self.__dict__.get("strengths")
        self._aged = self._drop_derived()
        self.users = places[self.users]
        self.user_ids = Ids(self.user_ids.values.take(pa.array(numbers)))
        if strengths is not None:
            self.strengths = strengths

    def as_of(self, until: int) -> None:
        """Take strengths for those of a moment, epoch milliseconds."""
        if self.until != until:
            self.until = until
            self.__dict__.pop("strengths", None)

    def _keep(self, mask: Bools) -> Int64s | None:
        """Take out the edges where `mask` (bool [edges]) is false.

        Returns:
            The ages that were known, as `_drop_derived`: also those of the edges taken out.
        """
        aged = self._drop_derived()
        for name in COLUMNS:
            setattr(self, name, getattr(self, name)[mask])
        return aged

    def _drop_derived(self) -> Int64s | None:
        """Drop what depends on the edges.

        Returns:
            The ages that were known, in the form of `_aged`.
        """
        aged: Int64s | None = self.__dict__.pop("ages", self._aged)
        self.__dict__.pop("strengths", None)
        self._starts = self._aged = None
        return aged

    def renumber_items(self, first: int, numbers: Int32s, ids: Ids) -> None:
        """Give items other numbers, in place.

        Args:
            first: the items before it keep their numbers.
            numbers: int32 [items from `first` on], their new ones, none twice.
            ids: of all items by their new numbers.
        """
        self.item_ids = ids
        if np.array_equal(numbers, first + np.arange(len(numbers))):
            return
        late = self.items >= first
        self.items = self.items.copy()
        self.items[late] = numbers[self.items[late] - first]
        by_key = np.argsort(self.keys, kind="stable")
        self._drop_derived()
        for name in COLUMNS:
            setattr(self, name, getattr(self, name)[by_key])

    def prepare(self) -> None:
        """Make what is derived from the edges now, and not on whichever threads ask for it."""
        _ = self.starts, self.strengths, self.ages

    def expire(self, oldest: int) -> Int32s:
        """Take out the edges whose last event is older than `oldest`, epoch milliseconds.

        A user without an edge left is taken out as by `forget`.

        Returns:
            The numbers of the users who lost an edge, int32.
        """
        kept = self.timestamps >= oldest
        touched: Int32s = np.unique(self.users[~kept])
        if len(touched):
            self._keep(kept)
            self.user_ids.blank(touched[~np.isin(touched, self.users)].tolist())
        return touched

    def subset(self, mask: Bools) -> InteractionGraph:
        """The same nodes with the edges where `mask` (bool [edges]) is true."""
        return replace(self, **{name: getattr(self, name)[mask] for name in COLUMNS})

    def shared(self, ranks: Ranks) -> InteractionGraph:
        """Of a graph that all ranks have as a whole, this rank's share."""
        if not ranks.several:
            return self
        until = int(self.timestamps.max(initial=0)) if self.until is None else self.until
        own = self._of_users(np.flatnonzero(are_own(self.user_ids.hashes, ranks)))
        return replace(own, ranks=ranks, until=until)

    def every(self, nth: int) -> InteractionGraph:
        """Every nth user of all ranks' in the order of their hashes, renumbered, with the edges of
        these; all items."""
        if nth == 1:
            return self
        users = one_in(nth, self.user_ids.by_hash.astype(np.int64), self.ranks)
        return self._of_users(np.sort(users))

    def _of_users(self, numbers: Int64s) -> InteractionGraph:
        """The graph of these users alone; numbers are those of `keep_users`."""
        kept = np.zeros(self.n_users, np.bool_)
        kept[numbers] = True
        made = self.subset(kept[self.users])
        made.keep_users(numbers)
        return made

    def by_time(self) -> Int64s:
        """Numbers of the edges in each user's order, users one after another; int64 [edges]."""
        return order.by_time(self.users, self.timestamps, self.places)

    @cached_property
    def ages(self) -> Int64s:
        """How many newer edges the user of each edge has, int64 [edges]; 0 where order says
        nothing, as `timed` tells."""
        known, self._aged = self._aged, None
        if known is None:
            return order.ages(self.users, self.timestamps, self.places, self.n_users)
        new = np.flatnonzero(known < 0)
        if not len(new):
            return known
        columns = self.users[new], self.timestamps[new], self.places[new]
        made = known.copy()
        made[new] = order.ages(*columns, self.n_users)
        return made

    @property
    def timed(self) -> Bools:
        """Whether a user's edges have differing times, bool [users]: else their order says
        nothing."""
        return order.timed(self.users, self.timestamps, self.n_users)

    def own(self, users: Int64s) -> tuple[Int64s, Int64s, Float32s, Int64s]:
        """Edges of users int64 [block].

        Returns:
            starts int64 [block + 1], items int64 [edges], strengths float32 [edges], ages int64
            [edges].
        """
        starts, at = self.places_of(users)
        return starts, self.items[at].astype(np.int64), self.strengths[at], self.ages[at]

    def places_of(self, users: Int64s) -> tuple[Int64s, Int64s]:
        """Places among the edges of those of users int64 [block].

        Returns:
            starts int64 [block + 1], places int64 [edges].
        """
        rows = self.starts
        counts = rows[users + 1] - rows[users]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return starts, np.arange(starts[-1]) + np.repeat(rows[users] - starts[:-1], counts)

    @property
    def user_degrees(self) -> Int64s:
        """Edges of each user, int64 [users]."""
        return np.bincount(self.users, minlength=self.n_users)

    @property
    def item_degrees(self) -> Int64s:
        """Edges of each item on all ranks, int64 [items]."""
        return self.ranks.sum(np.bincount(self.items, minlength=self.n_items))

    @property
    def user_strengths(self) -> Float32s:
        """Sum of each user's strengths, float32 [users]."""
        return np.bincount(self.users, self.strengths, self.n_users).astype(np.float32)

    @property
    def item_strengths(self) -> Float32s:
        """Sum of each item's strengths on all ranks, float32 [items]."""
        sums = np.bincount(self.items, self.strengths, self.n_items)
        # Without an edge numpy counts in whole numbers.
        return self.ranks.sum(sums.astype(np.float64, copy=False)).astype(np.float32)

    @property
    def starts(self) -> Int64s:
        """CSR row pointer by user, int64 [users + 1]."""
        # Graphs of the same ids may grow the ids, and so have more users.
        if self._starts is None or len(self._starts) != self.n_users + 1:
            self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.user_degrees)])
        return self._starts
