"""Looks what the edge store has of users whose rows come by partitions that other processes read.

A user of this process may come by another partition from one event on, as partitions were added to
the topic or the events have no keys. The edge store alone tells so here. What is read are its new
rows, every few seconds, on a thread of its own.

Where partitions have just been gained, the rows of the last seconds are looked at again for those
of the users who have rows of several partitions: who read them before may have known of such users,
and not have written their lists yet.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.store import EdgeStore, StoreError, Watermark
from consumer.edge.traces import split
from serving.edges.elsewhere import Seen
from serving.edges.user_edges import UserEdges
from serving.loop.partitions import Partitions
from trainer.memory import trim

LOOK_EVERY = 2.0  # seconds between two looks
LOOK_BACK = 20_000_000  # microseconds before the newest row, within which lists are settled


class Looking:
    """Looks once when partitions were gained, and on while several processes share them."""

    def __init__(self, uri: str, topic: str, edges: UserEdges, partitions: Partitions) -> None:
        self._uri, self._topic = uri, topic
        self._edges, self._partitions = edges, partitions
        self._thread = ThreadPoolExecutor(1, "looking")
        self._running: Future[Seen] | None = None
        self._look_at = 0.0
        self._store: EdgeStore | None = None  # of the thread
        self._watermark = Watermark()  # up to which the store was looked at
        self._looks_back = False  # whether the next look is for what was before the watermark

    def begin(self) -> None:
        """Partitions were gained; the edges have all that the store had then."""
        self.lose()
        self._looks_back = True
        self._look_at = 0.0
        self._watermark = self._edges.watermark

    def lose(self) -> None:
        """What is looked at is of no use: other partitions will be read here."""
        self._running = None

    def step(self) -> None:
        """Use what a look has found; begin the next one if it is time."""
        now = time.monotonic()
        if self._running:
            if self._running.done():
                self._finish(self._running, now)
        elif now >= self._look_at and (mine := self._partitions.mine):
            if not (self._looks_back or self._partitions.are_shared):
                return
            if self._looks_back:
                several = self._edges.users_of_several()
                self._running = self._thread.submit(self._look_back, self._watermark, several)
            else:
                self._running = self._thread.submit(self._look, self._watermark, mine)

    def close(self) -> None:
        """What the thread still reads is of no use."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _finish(self, running: Future[Seen], now: float) -> None:
        self._running = None
        self._look_at = now + LOOK_EVERY
        try:
            seen = running.result()
        except StoreError:
            return  # which others tell
        if self._looks_back:
            self._looks_back = False
            self._edges.settle(seen.partitions)  # also where all partitions are read here
            self._thread.submit(trim)  # the rows that were read: 300 MB of two million
        else:
            self._watermark = seen.watermark
        self._edges.see(seen)

    def _look_back(self, watermark: Watermark, users: Collection[str]) -> Seen:
        """On the thread: those with rows of the last seconds before the watermark, or after."""
        if watermark.stamp is None or not users:  # else millions of rows may have come just now
            return Seen({}, watermark)
        before = replace(watermark, stamp=max(0, watermark.stamp - LOOK_BACK), logs={})
        return self._look(before, frozenset(), users)

    def _look(
        self, watermark: Watermark, mine: Set[int], among: Collection[str] | None = None
    ) -> Seen:
        """On the thread: the users with rows of other partitions than these, past the watermark.

        Args:
            among: the only users who are looked for; None for all.
        """
        self._store = self._store or EdgeStore(self._uri, self._topic)
        if not self._store.changed(watermark):
            return Seen({}, watermark)
        news = self._store.news(watermark)
        wanted = None if among is None else pa.array(list(among), pa.string())
        found: dict[str, int] = {}
        for rows in news.read():
            rows, _ = split(rows)
            if wanted is not None:
                rows = rows.filter(pc.is_in(rows["user_id"], value_set=wanted))
            partitions = rows["kafka_partition"].to_numpy()
            others = pa.array(~np.isin(partitions, list(mine)))
            users = [*found, *rows["user_id"].filter(others).unique().to_pylist()]
            of_these = pc.is_in(rows["user_id"], value_set=pa.array(users, pa.string()))
            names = rows["user_id"].filter(of_these).to_pylist()
            newest = partitions[of_these.to_numpy()].tolist()
            found |= dict(zip(names, newest, strict=True))  # of several rows the last one counts
        return Seen(found, news.end(watermark))
