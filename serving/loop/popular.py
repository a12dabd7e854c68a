"""The list for users without a list, counted and written every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from serving.edges.popularity import Counted, together
from serving.edges.user_edges import UserEdges
from serving.lists.popular_list import PopularList
from serving.loop.shares import MOST_COUNTED
from serving.redis.store import Store

EVERY = 10.0  # seconds
TIMES_AS_LONG = 20  # as the list in Redis, so that something is left without what a user has


class Popular:
    """Recently popular items, as of the last `write`.

    list: they, TIMES_AS_LONG as the list in Redis.
    """

    def __init__(self, k: int) -> None:
        """`k`: items in the list in Redis, at most."""
        self._k = k
        self._written_at = -EVERY
        self._ever_written = False
        self.list = PopularList()

    def hurry(self) -> None:
        """The next `write` is due at once."""
        self._written_at = -EVERY

    def write(
        self, edges: UserEdges, others: Sequence[Counted], version: str, store: Store
    ) -> None:
        """Count and write, if it is due.

        Args:
            others: what other processes have counted of their users.
            version: the live model's or empty.

        Raises:
            RedisDown: it stays due.
        """
        if time.monotonic() - self._written_at < EVERY:
            return
        n = self._k * TIMES_AS_LONG
        own = edges.popular(max(n, MOST_COUNTED) if others else n)
        found = together([own, *others], n) if others else own
        counts = found.counts.astype(np.float32)
        self.list = PopularList(found.items, counts, version, int(time.time() * 1000))
        if found.items or self._ever_written:  # it is empty where all that was liked was taken back
            store.put_popular(self.list.first(self._k))
            self._ever_written = True
        self._written_at = time.monotonic()
