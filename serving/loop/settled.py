"""Users whose lists are written again without an event, as their edges turned out to be others.

Nobody else knows of these users: the process that takes a partition over finds their events
answered. So none of them is dropped while it is not known who reads the user's partition. Where it
becomes another process, the user keeps the older list until the next event or the next model.
"""

from __future__ import annotations

from collections.abc import Iterable

from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.partitions import Partitions


class Settled:
    """Makes the users due whose partitions are read here, as soon as they are."""

    def __init__(self, edges: UserEdges, due: DueUsers, partitions: Partitions) -> None:
        self._edges, self._due, self._partitions = edges, due, partitions
        self._users: set[str] = set()

    def step(self) -> None:
        """Make users due; keep those whose partition waits to be read here; drop all others."""
        self._users |= self._edges.take_settled()
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
