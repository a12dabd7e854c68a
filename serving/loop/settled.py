"""Users whose lists are written again without an event, as their edges turned out to be others.

A user's partition may go over to another one by the user's events alone, with the key. For a moment
the process before does not know that and may write an older list. So the new process writes the
list of such a user again when the process before must have seen it in the edge store.

Nobody else knows of these users: the process that takes a partition over finds their events
answered. So none of them is dropped while it is not known who reads the user's partition. Where it
becomes another process, that one finds those of several partitions (looking.py). A user some of
whose edges have expired keeps the older list until the next event or the next model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.looking import LOOK_EVERY
from serving.loop.partitions import Partitions

AGAIN_AFTER = 2.0 * LOOK_EVERY  # seconds in which other processes look, and end what they write


class Settled:
    """Makes the users due whose partitions are read here, as soon as they are."""

    def __init__(self, edges: UserEdges, due: DueUsers, partitions: Partitions) -> None:
        self._edges, self._due, self._partitions = edges, due, partitions
        self._users: set[str] = set()
        self._again: deque[tuple[float, set[str]]] = deque()  # and from when on, monotonic seconds

    def step(self) -> None:
        """Make users due; keep those whose partition waits to be read here; drop all others."""
        self._users |= self._edges.take_settled()
        checked, now = self._edges.take_checked(), time.monotonic()
        if checked and self._partitions.are_shared:
            self._users |= checked
            self._again.append((now + AGAIN_AFTER, checked))
        while self._again and self._again[0][0] <= now:
            self._users |= self._again.popleft()[1]
        mine = self._partitions.mine
        if not mine or not self._users:
            return
        waiting, kept = self._partitions.waiting(), set()
        for user in self._users:
            partition = self._edges.partition(user)
            if partition in mine:
                self._due.add_without_event(user, partition)
            elif partition in waiting:
                kept.add(user)
        self._users = kept

    def put_back(self, users: Iterable[str]) -> None:
        """These users were due without an event when partitions were lost."""
        self._users.update(users)
