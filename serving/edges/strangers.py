"""Users who have rows in the edge store and whose edges are not held here, by hashes of their ids.

A user who comes here for the first time may have edges in the store that came by partitions of
other processes. Whether that is so must be known of each user in a moment, and the ids of all users
of all processes would take most of the memory that sharing spares. A hash takes 8 bytes, and 4 the
partition of the user's rows: so when a partition comes here, it is known who has rows of others
too, and these others need not be read. Python makes a hash with a key of the process, so nobody can
make ids of one hash. Where two ids have one hash, the store is asked once more than needed.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence, Set

import numpy as np

from trainer.graph.arrays import Int32s, Int64s
from trainer.graph.keys import contained

FEWEST = 10_000  # hashes that are sorted in among the others together, or
PART = 10  # this part of all
SEVERAL = -1  # in the place of a partition: rows of several, or of one that is not known


class Strangers:
    """A set of users that may hold a few others too. Safe for several threads.

    are_old: whether users were forgotten since all were read: some may have no rows any more.
    """

    def __init__(self) -> None:
        self.are_old = False
        self._lock = threading.Lock()
        self._sorted: Int64s = np.empty(0, np.int64)
        self._partitions: Int32s = np.empty(0, np.int32)  # of these
        self._more: dict[int, int] = {}  # hash -> partition, of those that are not sorted in yet

    def __contains__(self, user: str) -> bool:
        return bool(self.among([user]))

    def among(self, users: Collection[str]) -> list[str]:
        """Those of the users who are in the set."""
        hashes = _hashes(users)
        with self._lock:
            found = contained(self._sorted, hashes).tolist()
            pairs = zip(users, hashes.tolist(), found, strict=True)
            return [user for user, number, known in pairs if known or number in self._more]

    def add(self, users: Sequence[str], partitions: Int32s | int = SEVERAL) -> None:
        """Put users in, who have rows of this partition, or each of another one.

        Args:
            partitions: int32 [users], or the one of all.
        """
        of = np.broadcast_to(partitions, len(users)).tolist()
        with self._lock:
            more = self._more
            for number, partition in zip(map(hash, users), of, strict=True):
                if more.setdefault(number, partition) != partition:
                    more[number] = SEVERAL
            if len(more) > max(FEWEST, len(self._sorted) // PART):
                self._sort_in()

    def discard(self, users: Collection[str]) -> None:
        """Take users out."""
        hashes = _hashes(users)
        with self._lock:
            for number in hashes.tolist():
                self._more.pop(number, None)
            there = hashes[contained(self._sorted, hashes)]
            if len(there):
                at = np.searchsorted(self._sorted, there)
                self._sorted = np.delete(self._sorted, at)
                self._partitions = np.delete(self._partitions, at)

    def partitions(self) -> set[int]:
        """Those of the users' rows, but for users of several."""
        with self._lock:
            found = {*np.unique(self._partitions).tolist(), *self._more.values()}
        return found - {SEVERAL}

    def have_several(self) -> bool:
        """Whether any of the users may have rows of several partitions."""
        with self._lock:
            return SEVERAL in self._partitions or SEVERAL in self._more.values()

    def without(self, partitions: Set[int]) -> Strangers:
        """Those who have, or may have, rows of other partitions than these."""
        made = Strangers()
        made.are_old = self.are_old
        with self._lock:
            self._sort_in()
            kept = ~np.isin(self._partitions, list(partitions))
            made._sorted, made._partitions = self._sorted[kept], self._partitions[kept]
        return made

    def _sort_in(self) -> None:
        """By a sort, which merges what is sorted; numpy's own union took far longer."""
        n = len(self._more)
        hashes = np.fromiter(self._more.keys(), np.int64, n)
        partitions = np.fromiter(self._more.values(), np.int32, n)
        order = np.argsort(hashes)
        made = np.concatenate([self._sorted, hashes[order]])
        of = np.concatenate([self._partitions, partitions[order]])
        order = np.argsort(made, kind="stable")
        made, of = made[order], of[order]
        twice = np.flatnonzero(made[1:] == made[:-1])  # at most two of one hash
        of[twice] = np.where(of[twice] == of[twice + 1], of[twice], SEVERAL)
        self._sorted, self._partitions = np.delete(made, twice + 1), np.delete(of, twice + 1)
        self._more = {}


def _hashes(users: Collection[str]) -> Int64s:
    return np.fromiter(map(hash, users), np.int64, len(users))
