"""Edges that are older than the retention leave; their users get new lists, or lose their lists."""

from __future__ import annotations

from consumer.edge.retention import Retention
from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.forgetting import Forgetting
from serving.loop.partitions import Partitions


class Expiry:
    """Looks from time to time."""

    def __init__(
        self, days: float | None, edges: UserEdges, due: DueUsers, forgetting: Forgetting,
        partitions: Partitions,
    ) -> None:  # fmt: skip
        """`days`: how long an edge stays, None for ever."""
        self._retention = Retention(days)
        self._edges, self._due, self._forgetting = edges, due, forgetting
        self._partitions = partitions
        self._looked_at_lists = False  # of users whose edges expired while nobody served

    def step(self) -> bool:
        """Take out what is too old, if it is time to look; returns whether it looked."""
        oldest = self._retention.due() if self._partitions.mine else None
        if oldest is None:
            return False
        gone = self._edges.expire(oldest)
        expired = [user for user, partition in gone.items() if partition in self._partitions.mine]
        self._forgetting.note_expired(expired)
        self.write_settled()
        if not self._looked_at_lists:
            self._forgetting.note_old(oldest)
            self._looked_at_lists = True
        return True

    def write_settled(self) -> None:
        """Have the lists written again of users whose edges turned out to be others."""
        for user in self._edges.take_settled():
            partition = self._edges.partition(user)
            if partition in self._partitions.mine:
                self._due.add_without_event(user, partition)
