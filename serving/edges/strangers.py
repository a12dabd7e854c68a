"""Users who have rows in the edge store and whose edges are not held here, by hashes of their ids.

A user who comes here for the first time may have edges in the store that came by partitions of
other processes. Whether that is so must be known of each user in a moment, and the ids of all users
of all processes would take most of the memory that sharing spares. A hash takes 8 bytes. Python
makes it with a key of the process, so nobody can make ids of one hash. Where two ids have one hash,
the store is asked once more than needed.

Beside the hash is the partition of the user's rows, in 4 bytes, as long as all of them are of one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Set
from itertools import compress
from typing import NamedTuple

import numpy as np

from trainer.graph.arrays import Bools, Int32s, Int64s
from trainer.graph.keys import contained

FEWEST = 10_000  # hashes that are put among the others together, or
PART = 10  # this part of all
SEVERAL = -1  # in the place of a partition: rows of several, or of one that is not known


class _Hashes(NamedTuple):
    """Hashes, ascending, none twice, and the partition of each."""

    hashes: Int64s = np.empty(0, np.int64)
    partitions: Int32s = np.empty(0, np.int32)

    def where(self, mask: Bools) -> _Hashes:
        """Those where `mask` is true."""
        return _Hashes(self.hashes[mask], self.partitions[mask])

    def with_others(self, hashes: Int64s, partitions: Int32s) -> _Hashes:
        """These and others, which may be in any order and come twice."""
        # A sort that keeps the order merges what is sorted; numpy's own union took far longer.
        order = np.argsort(np.concatenate([self.hashes, hashes]), kind="stable")
        made = np.concatenate([self.hashes, hashes])[order]
        of = np.concatenate([self.partitions, partitions])[order]
        first = np.append(True, made[1:] != made[:-1])
        if first.all():
            return _Hashes(made, of)
        starts = np.flatnonzero(first)
        least, most = np.minimum.reduceat(of, starts), np.maximum.reduceat(of, starts)
        return _Hashes(made[starts], np.where(least == most, least, SEVERAL))


class Strangers:
    """A set of users that may hold a few others too. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most = _Hashes()
        self._newest = _Hashes()  # few, so that one more costs little; some may be in `_most` too

    def __contains__(self, user: str) -> bool:
        return bool(self.among([user]))

    def among(self, users: Collection[str]) -> list[str]:
        """Those of the users who are in the set."""
        hashes = _hashes(users)
        with self._lock:
            found = contained(self._most.hashes, hashes) | contained(self._newest.hashes, hashes)
        return [*compress(users, found)]

    def add(self, users: Collection[str], partitions: Int32s | int = SEVERAL) -> None:
        """Put users in.

        Args:
            partitions: int32 [users], the partition of all rows of each user, SEVERAL where they
                are of several or nobody knows; or one number for all users.
        """
        of = np.broadcast_to(np.asarray(partitions, np.int32), len(users))
        with self._lock:
            self._newest = self._newest.with_others(_hashes(users), of)
            if len(self._newest.hashes) > max(FEWEST, len(self._most.hashes) // PART):
                self._most, self._newest = self._most.with_others(*self._newest), _Hashes()

    def discard(self, users: Collection[str]) -> None:
        """Take users out."""
        gone = np.sort(_hashes(users))
        with self._lock:
            self._most = self._most.where(~contained(gone, self._most.hashes))
            self._newest = self._newest.where(~contained(gone, self._newest.hashes))

    def have_rows_of(self, partitions: Set[int]) -> bool:
        """Whether any of them may have rows of these partitions, or of several."""
        return bool(np.isin(self._all().partitions, [SEVERAL, *partitions]).any())

    def without(self, partitions: Set[int]) -> Strangers:
        """Those who have, or may have, rows of other partitions than these. A user marked SEVERAL
        stays, even if all rows of the user were erased."""
        made, found = Strangers(), self._all()
        made._most = found.where(~np.isin(found.partitions, list(partitions)))
        return made

    def _all(self) -> _Hashes:
        with self._lock:
            return self._most.with_others(*self._newest)


def _hashes(users: Collection[str]) -> Int64s:
    return np.fromiter(map(hash, users), np.int64, len(users))
