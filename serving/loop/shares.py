"""What the serving processes tell each other of their users, by way of Redis.

A process holds the users of its own partitions. What is made of all users, the popular list and
the places of new items, is made of what each process tells of its own.
"""

from __future__ import annotations

import logging
import time

from process.text import visible
from serving.edges.popularity import Counted
from serving.edges.user_edges import UserEdges
from serving.loop.model_slot import ModelSlot
from serving.loop.partitions import Partitions
from serving.redis.share import Share, ShareUnreadable, read, written
from serving.redis.store import Store

EVERY = 5.0  # seconds
MOST_COUNTED = 5_000  # popular items that a process tells


class Shares:
    """Tells and hears from time to time.

    popular: what was heard of popular items.
    """

    def __init__(
        self, store: Store, edges: UserEdges, slot: ModelSlot, partitions: Partitions,
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self._store, self._edges, self._slot = store, edges, slot
        self._partitions, self._log = partitions, log
        self._done_at = -EVERY
        self._unreadable: dict[int, str] = {}  # partitions whose shares are of no use, and why
        self.popular: list[Counted] = []

    def hurry(self) -> None:
        """The next step is due at once."""
        self._done_at = -EVERY

    def step(self, n_partitions: int) -> bool:
        """Tell and hear, if it is due; returns whether other processes were heard.

        Args:
            n_partitions: of the topic, whoever reads them.

        Raises:
            RedisDown: it stays due.
        """
        if time.monotonic() - self._done_at < EVERY or not self._partitions.mine:
            return False
        edges, version, held = self._edges, self._slot.version, self._edges.held
        shares: list[Share] = []
        if held is not None:
            own = edges.popular(MOST_COUNTED)
            self._store.put_share(held, written(own, version, self._slot.tell(), edges.newest))
            found = self._store.shares(set(range(n_partitions)) - held)
            shares = [share for p, value in found.items() if (share := self._read(p, value))]
        self.popular = [share.popular for share in shares]
        likers = [liker for share in shares if share.model == version for liker in share.likers]
        self._slot.hear(likers, max((share.newest for share in shares), default=0))
        self._done_at = time.monotonic()
        return bool(shares)

    def _read(self, partition: int, value: bytes) -> Share | None:
        try:
            share = read(value)
        except ShareUnreadable as error:
            why = visible(str(error), 200)
            if self._unreadable.get(partition) != why:
                self._log.warning(
                    "What another process says in Redis of the users of partition %d is left out: "
                    "%s.", partition, why,
                )  # fmt: skip
            self._unreadable[partition] = why
            return None
        self._unreadable.pop(partition, None)
        return share
