"""Users who have rows in the edge store and whose edges are not held here, by hashes of their ids.

A user who comes here for the first time may have edges in the store that came by partitions of
other processes. Whether that is so must be known of each user in a moment, and the ids of all users
of all processes would take most of the memory that sharing spares. A hash takes 8 bytes. Python
makes it with a key of the process, so nobody can make ids of one hash. Where two ids have one hash,
the store is asked once more than needed.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

import numpy as np

from trainer.graph.arrays import Int64s
from trainer.graph.keys import contained

FEWEST = 10_000  # hashes that are sorted in among the others together, or
PART = 10  # this part of all


class Strangers:
    """A set of users that may hold a few others too. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sorted: Int64s = np.empty(0, np.int64)
        self._more: set[int] = set()  # not sorted in yet

    def __contains__(self, user: str) -> bool:
        return bool(self.among([user]))

    def among(self, users: Collection[str]) -> list[str]:
        """Those of the users who are in the set."""
        hashes = _hashes(users)
        with self._lock:
            found = contained(self._sorted, hashes).tolist()
            pairs = zip(users, hashes.tolist(), found, strict=True)
            return [user for user, number, known in pairs if known or number in self._more]

    def add(self, users: Iterable[str]) -> None:
        """Put users in."""
        with self._lock:
            self._more.update(map(hash, users))
            if len(self._more) > max(FEWEST, len(self._sorted) // PART):
                self._sorted, self._more = self._with_more(), set()

    def discard(self, users: Collection[str]) -> None:
        """Take users out."""
        hashes = _hashes(users)
        with self._lock:
            self._more.difference_update(hashes.tolist())
            there = hashes[contained(self._sorted, hashes)]
            if len(there):
                self._sorted = np.delete(self._sorted, np.searchsorted(self._sorted, there))

    def _with_more(self) -> Int64s:
        """All of them, sorted; numpy's own union took three hundred times as long."""
        more = np.fromiter(self._more, np.int64, len(self._more))
        made = np.concatenate([self._sorted, np.sort(more)])
        made.sort(kind="stable")  # which merges what is sorted
        unique: Int64s = made[np.append(True, np.diff(made) != 0)]
        return unique


def _hashes(users: Collection[str]) -> Int64s:
    return np.fromiter(map(hash, users), np.int64, len(users))
