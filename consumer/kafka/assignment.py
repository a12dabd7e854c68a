"""Which partitions a member of a consumer group has: which are read, lost, or wait for a start.

The Kafka client tells of a rebalance on a thread of its own, in the middle of anything that the
loop does. So the client's thread only notes here what was gained and lost, and the loop's thread
asks. What the loop answers counts only if nothing was lost since it was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Assignment:
    """Each partition of the member is read, or waits for a start. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[int] = set()  # for a start; not read before
        self._asked: set[int] = set()  # those of `_waiting` whose start the owner was asked for
        self._reading: set[int] = set()  # these are read
        self._lost: set[int] = set()  # the owner has not been told yet

    def gain(self, partitions: Iterable[int]) -> None:
        """Note partitions that are the member's now, and wait for a start."""
        numbers = set(partitions)
        with self._lock:
            if not numbers.isdisjoint(self._asked | self._reading):
                self._lost |= self._all_wait_again()
            self._waiting |= numbers

    def lose(self, partitions: Iterable[int]) -> None:
        """Note partitions that are another member's now, or will be.

        All that the owner knows of is lost then; what stays waits for a start again. So an owner
        may drop everything when anything is lost.
        """
        with self._lock:
            self._lost |= self._all_wait_again()
            self._waiting -= set(partitions)

    def start_over(self) -> frozenset[int]:
        """All partitions wait for a start again; returns those that the owner knows of."""
        with self._lock:
            return self._all_wait_again()

    def changes(self, ask: bool) -> tuple[frozenset[int], frozenset[int]]:
        """What was lost since the last call, of what the owner knows, and what waits for a start.

        Args:
            ask: whether the owner will be asked where partitions start; if not, none is told.
        """
        with self._lock:  # for both: what is lost after this was asked for in vain
            lost, self._lost = frozenset(self._lost), set()
            if ask:
                self._asked = set(self._waiting)
            return lost, frozenset(self._waiting if ask else ())

    def claim(self, partition: int) -> bool:
        """Whether the owner's start of the partition counts; then it is read from there.

        It does not count if anything was lost since the owner was asked: it will be asked again.
        """
        with self._lock:
            if partition not in self._asked:
                return False
            self._asked.discard(partition)
            self._waiting.discard(partition)
            self._reading.add(partition)
            return True

    def unclaim(self, partition: int) -> None:
        """Reading could not begin there: the owner must be asked again."""
        with self._lock:
            if partition in self._reading:
                self._reading.discard(partition)
                self._waiting.add(partition)

    @property
    def has_lost(self) -> bool:
        """Whether anything was lost that the owner has not been told yet."""
        return bool(self._lost)

    @property
    def waits(self) -> bool:
        """Whether any partition waits for a start."""
        return bool(self._waiting)

    def reading(self) -> frozenset[int]:
        """The partitions that are read."""
        with self._lock:
            return frozenset(self._reading)

    def all(self) -> set[int]:
        """The partitions that the member has."""
        with self._lock:
            return self._waiting | self._reading

    def _all_wait_again(self) -> frozenset[int]:
        known = frozenset(self._asked | self._reading)
        self._waiting |= self._reading
        self._asked, self._reading = set(), set()
        return known
