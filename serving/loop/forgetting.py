"""Lists that have to go: of users who are forgotten, and of users without an edge left."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from itertools import islice

from consumer.edge.traces import digest
from serving.edges.user_edges import UserEdges
from serving.redis.store import Store
from serving.redis.sweep import Sweep

AT_ONCE = 2_000  # expired lists that are deleted in a step; half a million may expire at once
CLOCKS_APART = 60_000  # milliseconds between the clocks of two serving processes, at most


class Forgetting:
    """Deletes a bit of it at each step; what it has to delete is noted at any time.

    Users whom the edge store has forgotten are known by the digests of their ids alone. Their lists
    are found by a walk over all lists, which takes many steps. Each digest has the time, in epoch
    milliseconds, up to which the user's list is to go: it is infinite for the first walk, then the
    end of that walk. Redis may come back with an old dump, and the walk is made again then. It so
    leaves the list that another process has written since for a user who came again. For the same
    reason users whose lists wait to be deleted when partitions are lost are known by their digests
    and the time of their notices from then on.
    """

    def __init__(self, store: Store, edges: UserEdges) -> None:
        self._store, self._edges = store, edges
        self._users: dict[str, float] = {}  # who are forgotten, and when, epoch milliseconds
        self._expired: set[str] = set()  # who have no edge left
        self._digests: dict[str, float] = {}  # of users who are forgotten, for the next walk
        self._oldest: int | None = None  # lists without newer events are deleted by the next walk
        self._walk: Sweep | None = None
        self._walk_digests: dict[str, float] = {}  # for the walk that is made now
        self._walk_oldest: int | None = None  # the same
        self._erased: dict[str, float] = {}  # digests of users whose list is gone

    def note(self, user: str) -> None:
        """The user is forgotten."""
        self._users[user] = time.time() * 1000

    def note_digests(self, digests: Collection[str]) -> None:
        """The users with these digests of their ids are forgotten."""
        self._digests |= dict.fromkeys(digests, math.inf)

    def note_expired(self, users: Collection[str]) -> None:
        """These users have no edge left."""
        self._expired |= set(users)

    def note_old(self, oldest: int) -> None:
        """Users of whom nothing is known here, and whose newest event is older, have no edge left.

        Args:
            oldest: epoch milliseconds.
        """
        self._oldest = oldest

    def lose(self) -> None:
        """Partitions were lost: other processes may have written newer lists of the users.

        `Expiry.start_over` finds the lists of users without an edge again.
        """
        _add({digest(user): at for user, at in self._users.items()}, self._digests)
        self._users.clear()
        self._expired.clear()

    def start_over(self) -> None:
        """Redis may have lost what was done, and found lists again in an old dump."""
        for known in (self._erased, self._walk_digests):
            _add(known, self._digests)
        if self._walk and self._oldest is None:  # a later look at the edges counts more
            self._oldest = self._walk_oldest
        self._walk = None
        self._walk_digests = {}

    @property
    def digests(self) -> set[str]:
        """Of the ids of all users who were ever forgotten here."""
        noted = map(digest, self._users)
        return {*self._erased, *self._walk_digests, *self._digests, *noted}

    @property
    def working(self) -> bool:
        """Whether there is more to delete."""
        waiting = self._users or self._expired or self._digests or self._oldest is not None
        return bool(waiting or self._walk)

    def step(self) -> None:
        """Delete some lists.

        Raises:
            RedisDown: they stay to be deleted.
        """
        if self._users:
            self._store.delete_users(self._users)
            self._erased |= dict.fromkeys(map(digest, self._users), time.time() * 1000)
            self._users.clear()
        if self._expired:
            some = list(islice(self._expired, AT_ONCE))
            # Who came again gets another list, and may have it already.
            self._store.delete_users([user for user in some if not self._edges.has(user)])
            self._expired.difference_update(some)
        if not self._walk and (self._digests or self._oldest is not None):
            self._begin_walk()
        if self._walk and not self._walk.step():
            now = time.time() * 1000
            _add({each: min(at, now) for each, at in self._walk_digests.items()}, self._erased)
            self._walk = None
            self._walk_digests = {}

    def _begin_walk(self) -> None:
        digests, oldest = self._digests, self._oldest
        self._walk_digests, self._walk_oldest = digests, oldest
        self._digests, self._oldest = {}, None

        def choose(users: Sequence[str]) -> list[str]:
            gone = self._edges.unknown(users)  # others came again, or are other processes'
            noted = {user: digests[d] for user in gone if (d := digest(user)) in digests}
            known = [user for user, until in noted.items() if until < math.inf]
            times = zip(known, self._store.update_times(known), strict=True)
            later = {u for u, at in times if at is not None and at > noted[u] + CLOCKS_APART}
            chosen = [user for user in noted if user not in later]
            if oldest is not None:
                events = zip(gone, self._store.event_times(gone), strict=True)
                chosen += [user for user, at in events if at is not None and at < oldest]
            return chosen

        self._walk = Sweep(self._store, choose)


def _add(digests: dict[str, float], to: dict[str, float]) -> None:
    """Add digests with their times to others; the later time of a digest counts."""
    for each, at in digests.items():
        to[each] = max(at, to.get(each, at))
