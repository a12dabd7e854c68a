"""The live loop: an event -> its user's edges -> fold-in -> that user's list in Redis.

Between two micro-batches of the stream it publishes a block of the newest snapshot, if one is due.
Several of these processes share the topic's partitions: whoever reads a partition writes the lists
of its users, and goes on at the events that no one has answered yet.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import numpy as np
import torch

from consumer.edge.retention import Retention
from consumer.edge.store import Log, Replaced, StoreError, wait_for_store
from consumer.edge.traces import digest
from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position, events, rows, sent_at
from consumer.kafka.client import Message, TopicShorter
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from process import outage
from process.errors import StreamGCNError
from process.health import Health
from process.log import Figures
from process.running import Running
from process.text import visible
from serving.edges.user_edges import UserEdges
from serving.items.new_items import NewItems
from serving.lists.ranking import Recommender
from serving.loop.due import DueUsers
from serving.loop.list_blocks import Block
from serving.loop.net import Net
from serving.loop.popular import Popular
from serving.loop.publication import Publication
from serving.redis.errors import RedisDown, RedisMisconfigured
from serving.redis.outage import Outage
from serving.redis.store import Store
from serving.redis.watch import Watch
from serving.settings import ServingSettings
from trainer.device import device
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.snapshots import Snapshots

log = logging.getLogger("serving")

BEGINNING, WRITING = "beginning lists", "writing lists"  # steps

GATHER = 0.03  # seconds in which users become due together: a list alone costs as much as a dozen
LOOK_EVERY = 0.5  # seconds between two looks for a new snapshot and at Redis
NEW_ITEMS_EVERY = 1.0  # seconds between two looks at items that the model has not seen
TURNS = 4  # of so many blocks one is of a publish, where users with new events fill blocks
MANY = 50_000  # users changed by the log, from which their edges are taken from the edge store
STORE_EVERY = 5.0  # seconds between two looks whether the edge store is there
SETTLE_AFTER = 2.0  # seconds from one time to the next for users with events of several partitions,
GROW_AFTER = 60.0  # for all others,
GROW_TIMES = 20.0  # and this many times as long as the last one took
KEEP_EVERY = 10.0  # seconds between two times that an evicting Redis is given small keys again
TELL_EVERY = 1.0  # seconds between two times that Kafka is told what is answered


class Refresh:
    """One serving process: the users' edges, the live model, the users whose list is due."""

    def __init__(
        self,
        settings: ServingSettings,
        stop: threading.Event,
        threads: int = 1,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> None:
        """Wait for the edge store, read the edges, then follow the log from there.

        Args:
            threads: on which lists are made.
        """
        self._threads = threads
        self._settings = settings
        self._stop = stop
        self._device = device(settings.device)
        self._figures = figures or Figures("serving")
        self._health = health or Health()
        self._store = Store(settings.redis_url, settings.redis_prefix, settings.redis_ttl_seconds)
        self._outage, self._net = Outage(log), Net(log)
        self._watch = Watch(self._store, settings.redis_ttl_seconds is not None, log)
        self._live = LiveModel(Snapshots(settings.model_store), log)
        self._recommender: Recommender | None = None
        self._new_items: NewItems | None = None
        self._publication = Publication(self._store, log)
        self._block: Block | None = None  # begun and not written
        self._of_publication = False  # the block is
        self._turn = 0
        self._popular = Popular(settings.top_k)
        self._looked_at = self._folded_at = self._told_at = self._begun_at = self._kept_at = 0.0
        self._grow_at = self._settle_at = self._store_at = 0.0  # at the earliest
        self._store_away = outage.Outage(
            log, "The edge store cannot be read", "The edge store is back"
        )
        self._refused: str | None = None  # snapshot for which the edges could not be read
        self._due = DueUsers()
        self._log: Log | None = None  # that is read
        self._mine: set[int] = set()  # partitions that are read here
        self._forgotten: set[str] = set()  # users whose list must go
        self._erased: set[str] = set()  # digests of users whose list is gone
        self._retention = Retention(settings.retention_days)
        self._expired: set[str] = set()  # users without an edge left, whose list must go
        self._looked_for_old = False  # for lists of users whose edges expired while nobody served
        self._events = self._refreshed = self._unforeseen = 0
        self.edges = UserEdges(settings.weighing())
        with self._health.waiting("the edge store"):
            self._edge_store = wait_for_store(settings.edge_store, settings.kafka_topic, stop, log)
        with self._health.busy("reading the edge store"):
            self._digests = self.edges.grow(self._edge_store)  # of users whose list must go
        group = f"{settings.kafka_group}-serving"
        self._subscription = Subscription(settings, group, log, stop, self._health)

    def run(self) -> None:
        """Take events, refresh, publish, until told to stop."""
        with self._subscription:
            while not self._stop.is_set():
                self._read()
                if not self._outage.paused:
                    self._serve()
                self._tell()
                if self._figures.due():
                    self._report()
                self._tell_health()
        self._store.close()
        log.info("Stopped.")

    def _tell_health(self) -> None:
        self._health.needs(
            Kafka=self._subscription.trouble,
            Redis=self._outage.trouble,
            store=self._store_away.trouble,
            model="" if self._recommender else "no model is live yet",
        )
        self._health.alive()

    def _read(self) -> None:
        """Take the log's next events, and wait for them if there is nothing else to do."""
        idle = self._outage.paused or not self._recommender
        idle = idle or self._net.paused(WRITING) or self._net.paused(BEGINNING)
        working = self._block or self._publication.running or self._behind()
        if self._due and not working and not idle:
            self._stop.wait(self._gathering())
        wait = 0.0 if (working or self._due) and not idle else GATHER
        polled = self._subscription.poll(wait)
        if polled.lost:
            self._lost()
        if polled.gained:
            self._place(polled.gained)
        for messages in polled.messages:
            self._take(messages)

    def _serve(self) -> None:
        """Write what was begun, see to all else, begin with the next lists.

        What fails is not lost: users whose lists are not written stay due, and a publish goes on at
        the block that failed.
        """
        try:
            self._net.run(WRITING, self._write_block)
            self._net.run("taking out what has expired", self._expire)
            self._net.run("deleting lists", self._forget)
            self._net.run("looking for a snapshot", self._look)
            self._net.run("folding in new items", self._fold_new_items)
            if not self._net.paused(WRITING):
                self._net.run(BEGINNING, self._begin_block)
        except RedisDown as error:
            self._outage.failed(error)
            self._block = None
            self._due.give_back()
            self._looked_at = 0.0  # the next try begins with a write
        else:
            self._outage.worked(left=self._publication.running)

    def _place(self, gained: Collection[int]) -> None:
        try:
            starts = {partition: self._start_of(partition) for partition in gained}
        except StreamGCNError as error:
            self._subscription.postpone(error)
            return
        with suppress(TopicShorter):  # until the consumer has begun another log
            self._subscription.place(starts)

    def _start_of(self, partition: int) -> int | None:
        """Where a gained partition goes on: at the events that no one has answered yet.

        The edge store may hold them already: they change nothing, but their users are due.
        """
        edge_log = self._edge_log()
        stored = self._edge_store.next_offset(partition, edge_log)
        answered = self._subscription.committed(partition)
        self._digests |= self.edges.grow(self._edge_store)
        if self._new_items:
            self._new_items.find()
        # Of a log that is new nothing is stored, and none of its events is known from another log.
        self.edges.begin(edge_log.number, partition, stored or 0)
        self._mine.add(partition)
        self._looked_at = 0.0  # its users' lists may be of another snapshot
        start = stored if stored is None or answered is None else min(stored, answered)
        if start is not None:
            self._due.read(partition, start)  # told at once, lest another goes on behind it
        return start

    def _edge_log(self) -> Log:
        """The topic's log in the edge store, as the consumer has numbered it."""
        topic, topic_id = self._settings.kafka_topic, self._subscription.topic_id
        found = self._edge_store.log(topic_id)
        if found is None:
            if not self._edge_store.before_logs():
                raise StoreError(f"the consumer has not begun with this log of topic {topic}")
            found = self._edge_store.newest()
        if self._log and found != self._log:
            log.warning("Topic %s was created anew; following it from its start.", topic)
        self._log = found
        return found

    def _lost(self) -> None:
        """Another process may have these partitions now, and write newer lists than this one."""
        self._mine.clear()
        self._due.lose()
        self._publication.drop()
        self._block = None

    def _take(self, messages: Sequence[Message]) -> None:
        table, rejected = rows(messages)  # the consumer sends these to the dead letters
        for each in rejected:
            if each.unforeseen:
                self._skip(each.message.partition, each.message.offset, each.reason)
        now = int(time.time() * 1000)
        stamps = {m.offset: sent_at(m, now) for m in messages}
        for event, partition, at in events(table):
            try:
                self._apply(event, partition, at, stamps[at.offset])
            except Exception as error:  # the last net: one event must not end the process
                self._skip(partition, at.offset, f"{type(error).__name__}: {error}")
        self._due.read(messages[-1].partition, messages[-1].offset + 1)
        self._events += len(table)

    def _apply(self, event: Event, partition: int, at: Position, stamp: int) -> None:
        self.edges.apply(event, partition, at)
        if event.type == FORGET:
            self._forgotten.add(event.user_id)
            if self.edges.partition(event.user_id) not in self._mine:
                return  # has not come again, or is another process's to write
        elif self._new_items:
            self._new_items.note(event)
        self._due.add(event.user_id, partition, at.offset, stamp)

    def _skip(self, partition: int, offset: int, reason: str) -> None:
        """Count what nobody foresaw, and say it the first time."""
        self._unforeseen += 1
        if self._unforeseen == 1:
            log.error(
                "Offset %d of partition %d is skipped (%s); more of this kind is only counted.",
                offset, partition, visible(reason, 200),
            )  # fmt: skip

    def _forget(self) -> None:
        """Delete the lists of users who are forgotten; who came again is due for a new one."""
        if self._digests:
            self._store.delete_digests(self._digests, keep=self.edges.has)
            self._erased |= self._digests
            self._digests.clear()
        if self._forgotten:
            self._store.delete_users(self._forgotten)
            for user in self._forgotten:
                if self._recommender:
                    self._recommender.forget(user)
            self._erased |= set(map(digest, self._forgotten))
            self._forgotten.clear()
        if self._expired:
            self._store.delete_users(self._expired)
            self._expired.clear()

    def _expire(self) -> None:
        """Take out edges that are too old; their users get a new list, or lose theirs."""
        oldest = self._retention.due() if self._mine else None
        if oldest is None:
            return
        gone = self.edges.expire(oldest)
        self._expired |= {user for user, partition in gone.items() if partition in self._mine}
        if self.edges.settled or gone:
            self._popular.expire()
        self._settle()
        if not self._looked_for_old:
            self._store.delete_older(oldest, keep=self.edges.has)
            self._looked_for_old = True

    def _look(self) -> None:
        """Take up a new live snapshot; see that Redis takes writes and has not lost its lists."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = time.monotonic()
        if self._watch.look():
            self._popular.expire()
            self._publication.start_over()
            self._digests |= self._erased  # an old dump may have brought their lists back
        self._write_popular()
        self._look_at_store()
        self._grow()
        self._settle()
        live = self._live.version()
        if live and (self._recommender is None or live != self._recommender.version):
            self._load()
        if self._recommender and self._watch.calm:
            self._see_to_publishing(self._recommender)

    def _grow(self) -> None:
        """Take from the edge store what the log has told, which needs far more memory there."""
        begun = time.monotonic()
        many = len(self.edges.changed) >= MANY and begun >= self._grow_at
        if not many and not (self.edges.unsettled and begun >= self._settle_at):
            return
        try:
            self._digests |= self.edges.grow(self._edge_store)
        except StoreError as error:
            self._store_away.failed(error)
        now = time.monotonic()
        self._grow_at = now + max(GROW_AFTER, GROW_TIMES * (now - begun))
        self._settle_at = now + max(SETTLE_AFTER, GROW_TIMES * (now - begun))

    def _look_at_store(self) -> None:
        """Notice that the edge store is away, or another one than before."""
        if time.monotonic() < self._store_at:
            return
        self._store_at = time.monotonic() + STORE_EVERY
        try:
            self._edge_store.look(self.edges.watermark)
        except Replaced as error:
            self._read_anew(error)
        except StoreError as error:
            self._store_away.failed(error)
        else:
            self._store_away.worked()

    def _read_anew(self, error: Replaced) -> None:
        """Take all edges from a store that is another one than before, and write all lists."""
        edges = UserEdges(self._settings.weighing())
        try:
            with self._health.busy("reading the edge store"):
                self._digests |= edges.grow(self._edge_store)
        except StoreError as failed:
            self._store_away.failed(failed)
            return
        self._store_away.worked()
        log.warning("%s; its edges were read from the start.", error)
        self.edges, self._log = edges, None
        if self._recommender:
            self.edges.dampen(self._recommender.trained.dampened)
            self._new_items = NewItems(self._recommender, self.edges)
        self._lost()
        self._subscription.restart()
        self._publication.renew(self._subscription.partitions())
        self._popular.expire()

    def _settle(self) -> None:
        """Write the lists of users anew whose edges the edge store told otherwise than the log."""
        for user in self.edges.settled:
            partition = self.edges.partition(user)
            if partition in self._mine:
                self._due.again(user, partition)
        self.edges.settled.clear()

    def _load(self) -> None:
        snapshot = self._live.read()
        version = snapshot.manifest.version if snapshot else None
        if snapshot is None or (self._recommender and version == self._recommender.version):
            return
        try:
            with self._health.busy("reading the edge store"):
                self._digests |= self.edges.grow(self._edge_store)
        except StoreError as error:
            if version != self._refused:
                self._refused = version
                log.warning("%s; the model in use stays.", error)
            return
        with self._health.busy("taking up a model"):
            self._recommender = Recommender(
                snapshot, self._device, self._settings.top_k, self._threads
            )
        self._recommender.forget_digests(self._erased | self._digests)
        self.edges.dampen(self._recommender.trained.dampened)
        self._new_items = NewItems(self._recommender, self.edges)
        self._popular.expire()
        self._publication.start_over()
        gc.freeze()  # ids and numbers by the million; to look through them took most of the time
        self._write_popular()

    def _see_to_publishing(self, recommender: Recommender) -> None:
        settings, generation = self._settings, self._watch.generation
        mark = f"{recommender.version} {generation} {settings.top_k} {settings.redis_ttl_seconds}"
        of = self._subscription.n_partitions
        self._publication.see_to(recommender, self.edges, set(self._mine), of, mark)
        if self._watch.evicted and time.monotonic() - self._kept_at > KEEP_EVERY:
            self._kept_at = time.monotonic()
            self._publication.keep(recommender)

    def _fold_new_items(self) -> None:
        """Make items that the model has not seen recommendable, by those who touched them."""
        if not self._new_items or not self._recommender:
            return
        if time.monotonic() - self._folded_at < NEW_ITEMS_EVERY:
            return
        self._folded_at = time.monotonic()
        numbers = self._new_items.fold()
        if numbers:
            self._publication.renew(set(self._mine))
        for made in self._recommender.neighbors(numbers):
            self._store.put_neighbors(*made)

    def _begin_block(self) -> None:
        """Begin with the next block of lists, which are made while the log is read."""
        if not self._recommender:
            if self._due and not self._live.version():
                self._due.drop()  # the first publish writes them
            return
        self._due.wake()
        try:
            self._block = self._next_block(self._recommender)
        except RedisDown:
            raise
        except Exception:
            self._give_up_block()
            raise

    def _next_block(self, recommender: Recommender) -> Block | None:
        """Of users with new events, of the publish, or of both."""
        behind, publication = self._behind(), self._publication
        self._of_publication = publication.running and not (publication.careful and self._due)
        if self._of_publication:
            self._turn = (self._turn + 1) % TURNS
            if not behind or not (self._turn or publication.renewing):
                return publication.begin(self._popular.whole, self._due.take)
            self._of_publication = False
        elif not behind and (not self._due or self._gathering() > 0):
            return None
        self._begun_at = time.monotonic()
        live = self._due.take(recommender.block)
        return Block(recommender, self.edges, self._popular.whole, live)

    def _write_block(self) -> None:
        """Write the block that was begun, before anything newer is written."""
        block, self._block = self._block, None
        if not block:
            return
        try:
            block.write(self._store)
        except RedisDown:
            raise
        except Exception:
            self._give_up_block()
            raise
        self._refreshed += self._due.answered()
        if self._of_publication:
            self._publication.written()

    def _give_up_block(self) -> None:
        """Nobody knows which list it was: each is tried alone."""
        self._due.doubt()
        if self._of_publication:
            self._publication.failed()

    def _tell(self) -> None:
        """Tell Kafka up to where the events are answered: where another process would go on."""
        if time.monotonic() - self._told_at < TELL_EVERY:
            return
        answered = self._due.offsets()
        if answered:
            self._told_at = time.monotonic()
            self._subscription.commit(answered)
            self._due.told(answered)

    def _write_popular(self) -> None:
        version = self._recommender.version if self._recommender else ""
        self._popular.write(self.edges, version, self._store)

    def _behind(self) -> bool:
        """Whether users with new events fill a block."""
        return self._recommender is not None and len(self._due) >= self._recommender.block

    def _gathering(self) -> float:
        """Seconds until the users with new events are answered."""
        return self._begun_at + GATHER - time.monotonic()

    def _report(self) -> None:
        p50, p95, p99 = np.percentile(self._due.take_delays() or [0.0], [50, 95, 99])
        self._figures.report(
            "served",
            events=self._events,
            refreshed=self._refreshed,
            users=self.edges.n_users,
            due=len(self._due),
            lag=self._subscription.lag(),
            freshness_p50_ms=round(p50 * 1000),
            freshness_p95_ms=round(p95 * 1000),
            freshness_p99_ms=round(p99 * 1000),
            published=round(self._publication.share, 3),
            redis_evicted=self._watch.evicted,
            model=self._recommender.version if self._recommender else "none",
            unforeseen=self._unforeseen,
        )


def run(settings: ServingSettings, process: Running) -> None:
    """The process `streamgcn serving`.

    Raises:
        RedisMisconfigured: waiting for Redis would not help.
    """
    _check_redis(settings)
    with process.health.waiting("Kafka"):
        wait_for_topics(settings, process.stop, log, dead=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each of them works for itself
    gc.set_threshold(100_000, 50, 100)  # edges are many objects, and in no cycles
    Refresh(settings, process.stop, threads, process.figures, process.health).run()


def _check_redis(settings: ServingSettings) -> None:
    store = Store(settings.redis_url, settings.redis_prefix)
    try:
        store.generation()
    except RedisMisconfigured:
        raise
    except RedisDown:
        pass  # it is waited for
    finally:
        store.close()
