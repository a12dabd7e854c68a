"""The live loop: an event -> its user's edges -> fold-in -> that user's list in Redis.

Between two micro-batches of the stream it publishes a block of the newest snapshot, if one is due.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from consumer.edges import StoreError, wait_for_store
from consumer.erasure import digest
from consumer.events import FORGET
from consumer.log import Figures
from consumer.rows import events, rows
from consumer.stream import Message, Stream, wait_for_topics
from serving.fold_in import Recommender
from serving.outage import Outage
from serving.publish import BLOCK, encoded, publish
from serving.settings import ServingSettings
from serving.store import Recommendations, RedisDown, Store
from serving.user_edges import UserEdges
from trainer.snapshots import SnapshotError, Snapshots
from trainer.train import device

log = logging.getLogger("serving")

LOOK_EVERY = 0.5  # seconds between two looks for a new snapshot and at Redis
POPULAR_EVERY = 10.0  # seconds between two popular lists
POPULAR_SPARE = 20  # times the list's length, so that something is left without what a user has


class Refresh:
    """One serving process: the users' edges, the live model, the users whose list is due."""

    def __init__(self, settings: ServingSettings, stop: threading.Event) -> None:
        """Wait for the edge store, read the edges, then follow the log from there."""
        self._settings = settings
        self._stop = stop
        self._device = device(settings.device)
        self._figures = Figures("serving", settings.metrics_port)
        self._store = Store(settings.redis_url, settings.redis_prefix, settings.redis_ttl_seconds)
        self._outage = Outage(log)
        self._generation = ""  # of what Redis holds
        self._again = False  # whether all is to be published again
        self._snapshots = Snapshots(settings.model_store)
        self._recommender: Recommender | None = None
        self._publishing: Iterator[int] | None = None
        self._popular = Recommendations([], [], [], "", "popular", 0, 0)
        self._popular_at = self._looked_at = 0.0
        self._refused = ""  # live snapshot that could not be read
        self._due: dict[str, None] = {}  # users to be refreshed, in order of their events
        self._forgotten: set[str] = set()  # users whose list must go
        self._digests: set[str]  # of such users' ids, told by the edge store
        self._erased: set[str] = set()  # of those whose list is gone
        self._arrived: list[int] = []  # Kafka timestamps of events not yet answered
        self._delays: list[float] = []  # seconds, of answered ones
        self._events = self._refreshed = 0
        self._after: dict[
            int, int
        ] = {}  # partition -> offset after the newest event, to tell Kafka
        self._started_ms = time.time() * 1000
        self.edges = UserEdges(settings.weighing())
        self._edge_store = wait_for_store(settings.edge_store, settings.kafka_topic, stop, log)
        self._digests = self.edges.grow(self._edge_store)
        group = f"{settings.kafka_group}-serving"
        self._stream = Stream(settings, group, log, stop, self.edges.watermark.get)

    def run(self) -> None:
        """Take events, refresh, publish, until told to stop."""
        with self._stream:
            while not self._stop.is_set():
                for messages in self._stream.poll(0.0 if self._busy() else 0.1):
                    self._take(messages)
                if not self._outage.paused:
                    self._serve()
                if self._figures.due():
                    self._report()
        self._store.close()
        log.info("Stopped.")

    def _serve(self) -> None:
        try:
            self._forget()
            self._look()
            self._refresh()
            self._publish()
        except RedisDown as error:
            self._lost(error)
        else:
            self._outage.worked(left=self._publishing is not None)

    def _take(self, messages: Sequence[Message]) -> None:
        table, _ = rows(messages)  # what is rejected the consumer sends to the dead letters
        for event, partition, offset in events(table):
            self.edges.apply(event, partition, offset)
            self._due[event.user_id] = None
            if event.type == FORGET:
                self._forgotten.add(event.user_id)
        self._after[messages[-1].partition] = messages[-1].offset + 1
        self._events += len(table)
        self._arrived += [message.timestamp for message in messages]

    def _forget(self) -> None:
        """Delete the lists of users who are forgotten; who came again is due for a new one."""
        if self._digests:
            self._store.delete_digests(self._digests)
            self._erased |= self._digests
            self._digests.clear()
        if self._forgotten:
            self._store.delete_users(self._forgotten)
            for user in self._forgotten:
                if self._recommender:
                    self._recommender.forget(user)
            self._erased |= set(map(digest, self._forgotten))
            self._forgotten.clear()

    def _look(self) -> None:
        """Take up a new live snapshot; see that Redis takes writes and has not lost its lists."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = time.monotonic()
        generation = self._store.generation()
        if self._generation and generation != self._generation:
            log.warning("Redis was restarted or flushed; writing all lists again.")
            self._again = True
            self._popular_at = 0.0
            self._digests |= self._erased  # an old dump may have brought their lists back
        self._generation = generation
        self._write_popular()
        live = self._snapshots.live()
        if live and (self._recommender is None or live != self._recommender.version):
            self._load(live)
        if self._again:
            self._start_publishing()

    def _load(self, version: str) -> None:
        try:
            snapshot = self._snapshots.read(version)
            self._digests |= self.edges.grow(self._edge_store)
        except (SnapshotError, StoreError) as error:
            if version != self._refused:
                self._refused = version
                log.warning("%s; the model in use stays.", error)
            return
        self._recommender = Recommender(snapshot, self._device, self._settings.top_k)
        self._popular_at = 0.0
        self._write_popular()
        log.info("Publishing snapshot %s.", version)
        self._start_publishing()

    def _start_publishing(self) -> None:
        self._again = False
        if self._recommender:
            self._publishing = publish(self._recommender, self.edges, self._popular, self._store)

    def _refresh(self) -> None:
        """Rewrite the lists of some users whose events came first."""
        if not self._due:
            return
        if self._recommender:
            users = list(self._due)[:BLOCK]
            left = (user for user in users if not self.edges.forgotten(user))
            block = [(user, self.edges.items(user)) for user in left]
            made = self._recommender.lists(block, "live", self._popular)
            self._store.put_users(*encoded(made))
            for user in users:
                del self._due[user]
            self._refreshed += len(users)
        else:
            self._due.clear()  # the first publish writes them
        if not self._due:
            now = time.time() * 1000
            fresh = (at for at in self._arrived if at >= self._started_ms)
            self._delays += [(now - at) / 1000 for at in fresh]
            self._arrived.clear()

    def _publish(self) -> None:
        if not self._publishing:
            return
        if next(self._publishing, None) is None:
            self._publishing = None
            log.info("Published all lists of %s.", self._recommender and self._recommender.version)

    def _lost(self, error: RedisDown) -> None:
        self._outage.failed(error)
        if self._publishing:  # the block that failed is lost, so all of it is done again
            self._publishing = None
            self._again = True

    def _write_popular(self) -> None:
        if time.monotonic() - self._popular_at < POPULAR_EVERY:
            return
        items, counts = self.edges.popular()
        most = self._settings.top_k * POPULAR_SPARE
        now = int(time.time() * 1000)
        version = self._recommender.version if self._recommender else ""
        scores = [round(float(count), 5) for count in counts[:most]]
        self._popular = Recommendations(items[:most], scores, [], version, "popular", now, now)
        self._popular_at = time.monotonic()
        k = self._settings.top_k
        shown = Recommendations(items[:k], scores[:k], [], version, "popular", now, now)
        if items:
            self._store.put_popular(shown)

    def _busy(self) -> bool:
        return not self._outage.paused and bool(self._due or self._publishing)

    def _report(self) -> None:
        if self._after and not self._due:
            self._stream.commit(self._after)
            self._after.clear()
        p50, p99 = np.percentile(self._delays or [0.0], [50, 99])
        self._delays.clear()
        self._figures.report(
            "served",
            events=self._events,
            refreshed=self._refreshed,
            users=self.edges.n_users,
            due=len(self._due),
            lag=self._stream.lag(),
            freshness_p50_ms=round(p50 * 1000),
            freshness_p99_ms=round(p99 * 1000),
            model=self._recommender.version if self._recommender else "none",
        )


def run(settings: ServingSettings, stop: threading.Event) -> None:
    """The process `streamgcn serving`."""
    wait_for_topics(settings, stop, log)
    if not stop.is_set():
        Refresh(settings, stop).run()
