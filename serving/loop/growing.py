"""The users' edges grow by what the edge store has new, on a thread of its own.

What the topic has told of a user takes far more memory than the same edges of the store do, and the
store alone tells the order of a user's events of several partitions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from consumer.edge.store import EdgeStore, Replaced, StoreError
from process.outage import Outage
from serving.edges.growth import Growth
from serving.edges.steps import Held
from serving.edges.user_edges import UserEdges
from serving.loop.forgetting import Forgetting
from trainer.memory import trim

CHANGED_USERS = 50_000  # changed by the topic, from which the store's rows are read
ELSEWHERE_USERS = 200_000  # with rows of other processes' partitions, from which too
LOOK_EVERY = 5.0  # seconds between two looks whether the edge store is there
# Seconds from one reading to the next for users with events of several partitions, at least,
SETTLE_AFTER, SETTLE_BEFORE = 2.0, 5.0  # and at most,
GROW_AFTER = 60.0  # for all others,
TIMES_AS_LONG = 20.0  # and this many times as long as the last one took


class Growing:
    """Reads the edge store's new rows into the users' edges.

    edge_store: for the thread of the loop.
    """

    def __init__(
        self, edge_store: EdgeStore, topic: str, edges: UserEdges, forgetting: Forgetting,
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self.edge_store = edge_store
        self._topic, self._edges, self._forgetting, self._log = topic, edges, forgetting, log
        self._away = Outage(log, "The edge store cannot be read", "The edge store is back")
        self._thread = ThreadPoolExecutor(1, "edge store")
        self._running: Future[Growth] | None = None
        self._begun_at = 0.0
        self._grow_at = self._settle_at = self._look_at = 0.0  # at the earliest

    @property
    def trouble(self) -> str:
        """Why the edge store cannot be read; empty if it can."""
        return self._away.trouble

    def hold(self, partitions: Held) -> Iterator[None]:
        """Hold the users of these partitions alone, and read what is new, a window at each step.

        Raises:
            StoreError: the store cannot be read.
        """
        digests: set[str] = set()
        try:
            yield from self._edges.hold(self.edge_store, partitions, digests)
        finally:
            self._forgetting.note_digests(digests)

    def step(self) -> None:
        """Use what the thread has read; have it read again if that is due."""
        try:
            if self._running:
                if self._running.done():
                    self._finish(self._running)
            elif self._is_due():
                self._begun_at = time.monotonic()  # before anything that can fail
                if self._edges.has_news(self.edge_store):
                    growth = self._edges.begin_growth()
                    self._running = self._thread.submit(self._read, growth)
        except StoreError as error:
            self._away.failed(error)
            self._wait(time.monotonic())

    def look(self) -> Replaced | None:
        """Look from time to time whether the store is there; returns how it is another one."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_EVERY
        try:
            self.edge_store.look(self._edges.watermark)
        except Replaced as replaced:
            return replaced
        except StoreError as error:
            self._away.failed(error)
        else:
            self._away.worked()
        return None

    def read_anew(self, replaced: Replaced) -> bool:
        """Read all edges of a store that is another one; returns whether that could be done."""
        try:
            self._forgetting.note_digests(self._edges.read_anew(self.edge_store))
        except StoreError as error:
            self._away.failed(error)
            return False
        self._away.worked()
        self._log.warning("%s; the whole edge store was read again.", replaced)
        return True

    def close(self) -> None:
        """What the thread still reads is of no use."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_due(self) -> bool:
        now = time.monotonic()
        edges = self._edges
        much = len(edges.changed) >= CHANGED_USERS or edges.n_elsewhere >= ELSEWHERE_USERS
        # Users who left for another process are counted twice until they are held here no more.
        left = edges.held is not None and edges.n_elsewhere > 0
        soon = bool(edges.unsettled) or left
        return (much and now >= self._grow_at) or (soon and now >= self._settle_at)

    def _read(self, growth: Growth) -> Growth:
        growth.run(EdgeStore(self.edge_store.uri, self._topic))  # a thread has a store of its own
        return growth

    def _finish(self, running: Future[Growth]) -> None:
        self._running = None
        growth = running.result()
        self._wait(time.monotonic())
        digests = self._edges.finish_growth(growth)
        self._thread.submit(trim)  # what was read, and the edges before
        if digests is None:
            self._grow_at = self._settle_at = 0.0  # the edges have changed meanwhile: once more
        else:
            self._forgetting.note_digests(digests)

    def _wait(self, now: float) -> None:
        pause = TIMES_AS_LONG * (now - self._begun_at)
        self._grow_at = now + max(GROW_AFTER, pause)
        self._settle_at = now + min(max(SETTLE_AFTER, pause), SETTLE_BEFORE)
