"""The loop of serving: an event -> its user's edges -> that user's list in Redis.

Each round reads the topic, writes the block of lists that was begun, sees to all else, and begins
the next block, which is made on other threads while the topic is read again. So no list is
overwritten by one of older edges. Several processes share the topic's partitions: a process writes
the lists of the users whose events are in the partitions that the process reads.

This file is longer than 250 lines because each step of a round has its few lines here, and the
order of the steps counts.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from itertools import chain

import numpy as np

from consumer.ingest.stretches import stretches
from consumer.kafka.reading import Reader
from process.running import Running
from serving.edges.user_edges import UserEdges
from serving.loop.blocks import GATHER, Blocks
from serving.loop.due import DueUsers
from serving.loop.expiry import Expiry
from serving.loop.forgetting import Forgetting
from serving.loop.growing import Growing
from serving.loop.looking import Looking
from serving.loop.model_slot import ModelSlot
from serving.loop.partitions import Partitions
from serving.loop.popular import Popular
from serving.loop.publication import NEW_ITEMS, OTHER_EDGES, Publication
from serving.loop.safety_net import SafetyNet
from serving.loop.settled import Settled
from serving.loop.shares import Shares
from serving.loop.taking import Taking
from serving.redis.errors import RedisDown
from serving.redis.redis_outage import RedisOutage
from serving.redis.store import Store
from serving.redis.watch import Watch
from serving.settings import ServingSettings

BEGINNING, WRITING, DELETING = "beginning lists", "writing lists", "deleting lists"  # steps
LOOK_EVERY = 0.5  # seconds between two looks at Redis, and at the edge store and the live model
KEEP_EVERY = 10.0  # seconds between two times that a Redis that evicts keys gets small ones again
LIFE_EVERY = 1.0  # seconds between two signs of life in the middle of a poll


class ServingLoop:
    """One serving process."""

    def __init__(
        self, settings: ServingSettings, process: Running, store: Store, reader: Reader,
        edges: UserEdges, growing: Growing, forgetting: Forgetting, slot: ModelSlot,
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self._settings, self._process = settings, process
        self._store, self._reader = store, reader
        self._edges, self._growing = edges, growing
        self._forgetting, self._slot = forgetting, slot
        self._due = DueUsers()
        self._popular = Popular(settings.top_k)
        self._publication = Publication(store, log)
        self._blocks = Blocks(store, edges, self._due, self._publication, self._popular)
        topic = settings.kafka_topic
        self._partitions = Partitions(topic, reader, growing, edges, self._due, process.health, log)
        self._taking = Taking(edges, self._due, forgetting, slot, self._partitions, log)
        self._looking = Looking(growing.edge_store.uri, topic, edges, self._partitions)
        self._settled = Settled(edges, self._due, self._partitions)
        self._expiry = Expiry(settings.retention_days, edges, forgetting, self._partitions)
        self._shares = Shares(store, edges, slot, self._partitions, log)
        self._watch = Watch(store, settings.redis_ttl_seconds is not None, log)
        self._outage, self._net = RedisOutage(log), SafetyNet(log)
        self._looked_at = self._looked_at_stores_at = self._kept_at = self._shown_at = 0.0

    def run(self) -> None:
        """Read events and write lists, until told to stop."""
        with closing(self._looking):
            while not self._process.stop.is_set():
                self.round()

    def round(self) -> None:
        """Read what the topic has, and write lists if Redis takes them."""
        self._read()
        self._net.run("looking at the edge store and the model", self._look_at_stores)
        # Where partitions were lost in the middle of the poll, another process may have written
        # newer lists than those that were begun before it; the next poll tells what was lost.
        if not self._outage.paused and not self._reader.has_lost:
            self._write()
        self._partitions.commit()
        self._report()

    def _read(self) -> None:
        """Take the topic's next events, and wait for them if there is nothing else to do."""
        wait = self._wait()
        if 0.0 < wait < GATHER:
            self._process.stop.wait(wait)  # more users become due meanwhile
            wait = 0.0
        polled = self._reader.poll(min(wait, GATHER))
        if polled.lost:
            # Another process may have these partitions now, and write newer lists than this one.
            self._partitions.lose()
            self._looking.lose()
            self._settled.put_back(self._blocks.clear())
            self._forgetting.lose()
            self._expiry.start_over()
        if polled.gained and self._partitions.start(polled.gained):
            self._looking.begin()
            self._slot.find_new_items()
            self._shares.hurry()
            self._popular.hurry()
            self._looked_at = 0.0  # the lists of their users may be of another edition
        messages = list(chain.from_iterable(polled.messages))
        for stretch in stretches(messages):  # one poll may stand for minutes of work
            self._taking.take(stretch)
            self._show_life()

    def _show_life(self) -> None:
        """Stay healthy and a member of the group in the middle of a poll."""
        if time.monotonic() - self._shown_at > LIFE_EVERY:
            self._shown_at = time.monotonic()
            self._reader.heartbeat()
            self._process.health.alive()

    def _wait(self) -> float:
        """Seconds until there is something to write, as far as it can be written now."""
        blocked = self._outage.paused or self._net.paused(WRITING) or self._net.paused(BEGINNING)
        if blocked or not self._slot.recommender:
            return float("inf")
        if self._forgetting.working and not self._net.paused(DELETING):
            return 0.0
        return self._blocks.wait(self._slot.recommender)

    def _write(self) -> None:
        """Write the block that was begun, see to all else, begin the next block.

        What fails is not lost: users whose lists are not written stay due, and a publication goes
        on at the block that failed.
        """
        try:
            self._net.run(WRITING, self._blocks.write)
            self._net.run("taking out what has expired", self._expire)
            self._net.run(DELETING, self._forgetting.step)
            self._net.run("looking at Redis", self._look)
            self._net.run("folding in new items", self._fold_new_items)
            if not self._net.paused(WRITING):
                self._net.run(BEGINNING, self._begin_block)
        except RedisDown as error:
            self._outage.failed(error)
            self._blocks.give_back()
            self._looked_at = 0.0  # the next try begins with a write
        else:
            self._outage.worked(left=self._publication.running)

    def _expire(self) -> None:
        if self._expiry.step():
            self._settled.step()
            self._popular.hurry()

    def _look_at_stores(self) -> None:
        """Take what is new in the edge store and among the models, also while Redis is away."""
        if time.monotonic() - self._looked_at_stores_at < LOOK_EVERY:
            return
        self._looked_at_stores_at = time.monotonic()
        self._look_at_edge_store()
        version = self._slot.version
        if self._slot.step():
            self._settled.put_back(self._slot.take_here())
            if self._slot.version != version:
                self._publication.start_over()
            self._popular.hurry()
            self._shares.hurry()
            self._looked_at = 0.0

    def _look_at_edge_store(self) -> None:
        replaced = self._growing.look()
        if not replaced:
            self._growing.step()
            self._looking.step()
            self._settled.step()
            return
        with self._process.health.busy("reading the edge store"):
            if not self._growing.read_anew(replaced):
                return
        self._slot.use_other_edges()
        self._blocks.clear()
        self._partitions.restart()
        # Of all partitions: those that come later may have lists of the other edges too.
        self._publication.renew(set(range(self._reader.n_partitions)), OTHER_EDGES)
        self._popular.hurry()

    def _look(self) -> None:
        """See whether Redis has kept what was written, and whether all lists are to be written."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = time.monotonic()
        if self._watch.look():  # Redis has lost something
            self._popular.hurry()
            self._shares.hurry()
            self._publication.start_over()
            self._forgetting.start_over()
            self._expiry.start_over()
        if self._shares.step(self._reader.n_partitions):
            self._popular.hurry()
        if self._partitions.mine:  # else users of other processes may be held here
            others = self._shares.popular
            self._popular.write(self._edges, others, self._slot.version, self._store)
        self._publish()

    def _publish(self) -> None:
        """Begin to write all lists, if they are not of the present edition."""
        recommender = self._slot.recommender
        if not recommender or not self._slot.has_rows or not self._watch.calm:
            return
        length, ttl = self._settings.top_k, self._settings.redis_ttl_seconds
        edition = f"{self._slot.version} {self._watch.generation} {length} {ttl}"
        mine, n_partitions = self._partitions.mine, self._reader.n_partitions
        self._publication.begin_if_due(recommender, self._edges, mine, n_partitions, edition)
        if self._watch.evicted and time.monotonic() - self._kept_at > KEEP_EVERY:
            self._kept_at = time.monotonic()
            self._publication.keep(recommender)

    def _fold_new_items(self) -> None:
        numbers = self._slot.fold_new_items()
        if not numbers or not self._slot.recommender:
            return
        self._publication.renew(self._partitions.mine, NEW_ITEMS)
        for similar in self._slot.recommender.neighbors(numbers):
            self._store.put_neighbors(similar.ids, similar.values)

    def _begin_block(self) -> None:
        if self._slot.recommender:
            self._blocks.begin(self._slot.recommender)
            self._slot.note_lists(self._blocks.users)
        elif self._due and not self._slot.awaited:
            self._due.drop()  # the first publication writes their lists

    def _report(self) -> None:
        health, figures = self._process.health, self._process.figures
        health.needs(
            Kafka=self._reader.trouble,
            Redis=self._outage.trouble,
            store=self._growing.trouble,
            model="" if self._slot.recommender else "no model is live yet",
        )
        health.alive()
        if not figures.due():
            return
        delays = self._due.take_delays()
        figures.metrics.observe("freshness", delays)
        figures.metrics.observe("list_making", self._blocks.take_seconds())
        p50, p95, p99 = np.percentile(delays or [0.0], [50, 95, 99])
        figures.report(
            "served",
            events=self._taking.events,
            refreshed=self._blocks.answered,
            users=self._edges.n_users,
            due=len(self._due),
            lag=self._reader.lag(),
            freshness_p50_ms=round(p50 * 1000),
            freshness_p95_ms=round(p95 * 1000),
            freshness_p99_ms=round(p99 * 1000),
            published=round(self._publication.progress, 3),
            redis_evicted=self._watch.evicted,
            model=self._slot.version or "none",
            unforeseen=self._taking.unforeseen,
        )
