"""The list for users without one, written anew every few seconds."""

from __future__ import annotations

import time

from serving.edges.user_edges import UserEdges
from serving.redis.contract import Recommendations
from serving.redis.store import Store

EVERY = 10.0  # seconds
SPARE = 20  # times the list's length, so that something is left without what a user has


class Popular:
    """Recently popular items, as of the last `write`."""

    def __init__(self, k: int) -> None:
        """`k`: length of the list in Redis."""
        self._k = k
        self._at = -EVERY
        self._shown = False
        self.whole = Recommendations([], [], [], "", "popular", 0, 0)  # SPARE times as long

    def expire(self) -> None:
        """The next `write` is due at once."""
        self._at = -EVERY

    def write(self, edges: UserEdges, version: str, store: Store) -> None:
        """Count and write, if it is due; `version` is the live model's or empty.

        Raises:
            RedisDown: it stays due.
        """
        if time.monotonic() - self._at < EVERY:
            return
        now, k = int(time.time() * 1000), self._k
        items, counts = edges.popular(k * SPARE)
        scores = [round(count, 5) for count in counts.tolist()]
        self.whole = Recommendations(items, scores, [], version, "popular", now, now)
        if items or self._shown:  # it is empty where all that was liked was taken back
            store.put_popular(
                Recommendations(items[:k], scores[:k], [], version, "popular", now, now)
            )
            self._shown = True
        self._at = time.monotonic()
