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
from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position, events, rows, sent_at
from consumer.kafka.client import Message, TopicShorter
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from process.errors import StreamGCNError
from process.health import Health
from process.log import Figures
from process.running import Running
from process.text import visible
from serving.edges.user_edges import UserEdges
from serving.items.new_items import NewItems
from serving.items.served_model import ServedModel
from serving.lists.recommender import Recommender
from serving.loop.due import DueUsers
from serving.loop.forgetting import Forgetting
from serving.loop.growing import Growing
from serving.loop.list_block import ListBlock
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
        self._block: ListBlock | None = None  # begun and not written
        self._of_publication = False  # the block is
        self._turn = 0
        self._popular = Popular(settings.top_k)
        self._looked_at = self._folded_at = self._told_at = self._begun_at = self._kept_at = 0.0
        self._due = DueUsers()
        self._log: Log | None = None  # that is read
        self._mine: set[int] = set()  # partitions that are read here
        self._retention = Retention(settings.retention_days)
        self._looked_for_old = False  # for lists of users whose edges expired while nobody served
        self._events = self._refreshed = self._unforeseen = 0
        self.edges = UserEdges(settings.weighing())
        with self._health.waiting("the edge store"):
            self._edge_store = wait_for_store(settings.edge_store, settings.kafka_topic, stop, log)
        with self._health.busy("reading the edge store"):
            digests = self.edges.grow(self._edge_store)
        self._forgetting = Forgetting(self._store, self.edges)
        self._forgetting.note_digests(digests)
        self._growing = Growing(
            self._edge_store, settings.kafka_topic, self.edges, self._forgetting, log
        )
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
        self._growing.close()
        self._store.close()
        log.info("Stopped.")

    def _tell_health(self) -> None:
        self._health.needs(
            Kafka=self._subscription.trouble,
            Redis=self._outage.trouble,
            store=self._growing.trouble,
            model="" if self._recommender else "no model is live yet",
        )
        self._health.alive()

    def _read(self) -> None:
        """Take the log's next events, and wait for them if there is nothing else to do."""
        idle = self._outage.paused or not self._recommender
        idle = idle or self._net.paused(WRITING) or self._net.paused(BEGINNING)
        working = self._block or self._publication.running or self._behind()
        working = working or self._forgetting.working
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
            self._net.run("deleting lists", self._forgetting.step)
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
        self._growing.read_now()
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
            self._forgetting.note(event.user_id)
            if self._recommender:
                self._recommender.model.forget(event.user_id)
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

    def _expire(self) -> None:
        """Take out edges that are too old; their users get a new list, or lose theirs."""
        oldest = self._retention.due() if self._mine else None
        if oldest is None:
            return
        gone = self.edges.expire(oldest)
        self._forgetting.note_expired(
            [user for user, partition in gone.items() if partition in self._mine]
        )
        self._popular.hurry()
        self._settle()
        if not self._looked_for_old:
            self._forgetting.note_old(oldest)
            self._looked_for_old = True

    def _look(self) -> None:
        """Take up a new live snapshot; see that Redis takes writes and has not lost its lists."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = time.monotonic()
        if self._watch.look():
            self._popular.hurry()
            self._publication.start_over()
            self._forgetting.start_over()
        self._write_popular()
        if replaced := self._growing.look():
            self._read_anew(replaced)
        self._growing.step()
        self._settle()
        live = self._live.version()
        if live and (self._recommender is None or live != self._recommender.model.version):
            self._load()
        if self._recommender and self._watch.calm:
            self._see_to_publishing(self._recommender)

    def _read_anew(self, error: Replaced) -> None:
        """Take all edges from a store that is another one than before, and write all lists."""
        with self._health.busy("reading the edge store"):
            if not self._growing.read_anew(error):
                return
        self._log = None
        if self._recommender:
            self.edges.dampen(self._recommender.model.trained.dampened)
            self._new_items = NewItems(self._recommender.model, self.edges)
        self._lost()
        self._subscription.restart()
        self._publication.renew(self._subscription.partitions())
        self._popular.hurry()

    def _settle(self) -> None:
        """Write the lists of users anew whose edges the edge store told otherwise than the log."""
        for user in self.edges.take_settled():
            partition = self.edges.partition(user)
            if partition in self._mine:
                self._due.again(user, partition)

    def _load(self) -> None:
        snapshot = self._live.read()
        version = snapshot.manifest.version if snapshot else None
        if snapshot is None or (self._recommender and version == self._recommender.model.version):
            return
        with self._health.busy("taking up a model"):
            model = ServedModel(snapshot, self._device)
            self._recommender = Recommender(model, self._settings.top_k, self._threads)
        model.forget_digests(self._forgetting.digests)
        self.edges.dampen(model.trained.dampened)
        self._new_items = NewItems(model, self.edges)
        self._popular.hurry()
        self._publication.start_over()
        gc.freeze()  # ids and numbers by the million; to look through them took most of the time
        self._write_popular()

    def _see_to_publishing(self, recommender: Recommender) -> None:
        settings, version = self._settings, recommender.model.version
        made_for = f"{self._watch.generation} {settings.top_k} {settings.redis_ttl_seconds}"
        edition = f"{version} {made_for}"
        of = self._subscription.n_partitions
        self._publication.begin_if_due(recommender, self.edges, set(self._mine), of, edition)
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
            self._recommender.renew(numbers)
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

    def _next_block(self, recommender: Recommender) -> ListBlock | None:
        """Of users with new events, of the publish, or of both."""
        behind, publication = self._behind(), self._publication
        self._of_publication = publication.running and not (publication.careful and self._due)
        if self._of_publication:
            self._turn = (self._turn + 1) % TURNS
            if not behind or not (self._turn or publication.is_for_new_items):
                return publication.begin_block(self._popular.list, self._due.take)
            self._of_publication = False
        elif not behind and (not self._due or self._gathering() > 0):
            return None
        self._begun_at = time.monotonic()
        live = self._due.take(recommender.block_size)
        return ListBlock.begin(recommender, self.edges, self._popular.list, live)

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
        version = self._recommender.model.version if self._recommender else ""
        self._popular.write(self.edges, version, self._store)

    def _behind(self) -> bool:
        """Whether users with new events fill a block."""
        return self._recommender is not None and len(self._due) >= self._recommender.block_size

    def _gathering(self) -> float:
        """Seconds until the users with new events are answered."""
        return self._begun_at + GATHER - time.monotonic()

    def _report(self) -> None:
        delays = self._due.take_delays()
        self._figures.metrics.observe("freshness", delays)
        p50, p95, p99 = np.percentile(delays or [0.0], [50, 95, 99])
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
            published=round(self._publication.progress, 3),
            redis_evicted=self._watch.evicted,
            model=self._recommender.model.version if self._recommender else "none",
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
