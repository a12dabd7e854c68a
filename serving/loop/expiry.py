"""Edges that are older than the retention leave; users without an edge left lose their lists."""

from __future__ import annotations

from consumer.edge.retention import Retention
from serving.edges.user_edges import UserEdges
from serving.loop.forgetting import Forgetting
from serving.loop.partitions import Partitions


class Expiry:
    """Looks from time to time."""

    def __init__(
        self, days: float | None, edges: UserEdges, forgetting: Forgetting, partitions: Partitions
    ) -> None:
        """`days`: how long an edge stays, None for ever."""
        self._retention = Retention(days)
        self._edges, self._forgetting, self._partitions = edges, forgetting, partitions
        # The partitions for which all lists were looked at, for those of users whose edges expired
        # while nobody served, or while the partition went from one process to another.
        self._looked_at: frozenset[int] = frozenset()

    def start_over(self) -> None:
        """Look at all lists once more: some of users whose edges have expired may be there."""
        self._looked_at = frozenset()

    def step(self) -> bool:
        """Take out what is too old, if it is time to look; returns whether it looked."""
        mine = self._partitions.mine
        oldest = self._retention.due() if mine else None
        if oldest is None:
            return False
        gone = self._edges.expire(oldest)
        self._forgetting.note_expired([u for u, partition in gone.items() if partition in mine])
        if not mine <= self._looked_at:
            self._forgetting.note_old(oldest)
        self._looked_at = mine
        return True
