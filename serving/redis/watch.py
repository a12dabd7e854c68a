"""Whether Redis still holds what was written: flushes, restarts, and keys thrown away."""

from __future__ import annotations

import logging
import time

from serving.redis.server import Server
from serving.redis.store import Store

CALM = 600.0  # seconds without a loss after which the next one is answered at once again
FIRST_WAIT = 10.0  # seconds before lists that may only be evicted are written again, then twice
LONGEST_WAIT = 600.0  # as long each time, up to this


class Watch:
    """What was seen at the last look, twice a second.

    generation: stands for all that Redis has kept. evicted: keys that it threw away while this
    process looked.
    """

    def __init__(self, store: Store, expiring: bool, log: logging.Logger) -> None:
        """`expiring`: lists have a time to live."""
        self._store, self._expiring, self._log = store, expiring, log
        self.generation = ""
        self.evicted = 0
        self._last: Server | None = None
        self._told: tuple[str, int] | None = None  # policy and maxmemory
        self._lost_at = -CALM
        self._wait = 0.0

    def look(self) -> bool:
        """Look, and say what has changed; returns whether all lists are to be written again.

        Raises:
            RedisDown: Redis does not answer or takes no writes.
        """
        generation = self._store.generation()
        for sentence in self._store.losses():
            self._log.warning("%s", sentence)
        server = self._store.server
        before, self.generation = self.generation, generation
        lost = bool(before) and generation != before
        if lost:
            self._log.warning("Redis was restarted or flushed; writing all lists again.")
            self._note_loss(sure=server is not None and not server.evicts(self._expiring))
        self._note_evictions(server)
        return lost

    @property
    def calm(self) -> bool:
        """Whether lists may be written again: not right after the last time they seemed lost.

        Where it cannot be told from an eviction, that would only push out others.
        """
        return time.monotonic() - self._lost_at >= self._wait

    def _note_loss(self, sure: bool) -> None:
        now = time.monotonic()
        if sure or now - self._lost_at >= CALM:
            self._wait = 0.0
        else:
            self._wait = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * self._wait))
        self._lost_at = now

    def _note_evictions(self, server: Server | None) -> None:
        last, self._last = self._last, server
        if not server:
            return
        same = last is not None and last.runs == server.runs
        evicted = server.evicted - last.evicted if last and same else 0
        self.evicted += evicted
        first = last is None and server.evicted > 0
        settings = server.policy, server.maxmemory
        if (evicted or first) and server.evicts(self._expiring) and settings != self._told:
            self._told = settings
            self._log.warning("%s.", server.trouble)
