"""The consumer's loop: Kafka -> rows -> one commit of rows and offsets to the edge store.

While one batch is written, the next is filled.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from contextlib import closing
from typing import Self

from consumer.edge.store import EdgeStore, Fenced, StoreError
from consumer.ingest.commit import Writer
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.filling import Filling
from consumer.ingest.housekeeping import Housekeeping
from consumer.ingest.opening import open_store
from consumer.ingest.start_offsets import StartOffsets
from consumer.kafka.client import TopicShorter
from consumer.kafka.reading import Polled, Reader
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.health import Health
from process.log import Figures
from process.outage import Outage
from process.running import Running

log = logging.getLogger("consumer")

HEARTBEAT_SECONDS = 1.0  # between two signs of life while nothing more can be taken
LAST_COMMIT_SECONDS = 3.0  # given to the store when told to stop; leaving the group takes 3 more


class Ingest:
    """One consumer: its store, its batch, its partitions."""

    def __init__(
        self,
        settings: ConsumerSettings,
        stop: threading.Event,
        reader: Reader,
        store: EdgeStore,
        writer: Writer,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: to look at; the writer has one of its own, as they work on two threads.
        """
        self._settings = settings
        self._stop = stop
        self._reader = reader
        self._store = store
        self._writer = writer
        self._figures = figures or Figures("consumer")
        self._health = health or Health()
        self._store_away = Outage(log, "The edge store cannot be read", "The edge store is back")
        self._starts = StartOffsets(store, settings.kafka_topic, log)
        self._housekeeping = Housekeeping(settings, log)
        self._filling = Filling(settings, self._starts, log)
        self._stored: Counter[str] = Counter()  # counts of all batches that are stored
        self._reported = self._rows = 0
        self._reported_at = time.monotonic()

    @classmethod
    def join(
        cls,
        settings: ConsumerSettings,
        stop: threading.Event,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> Self:
        """Wait for the edge store, then join the consumer group.

        Raises:
            AccessRefused: the broker does not let this process in.
            SettingsError: the path cannot hold a table, or the table belongs to another topic.
            Stopped: told to stop before both were there.
        """
        health = health or Health()
        with health.waiting("the edge store"):
            store, written = (open_store(settings, stop, log) for _ in range(2))
        reader = Subscription(settings, settings.kafka_group, log, stop, health)
        writer = Writer(written, DeadLetters(settings), log)
        return cls(settings, stop, reader, store, writer, figures, health)

    def run(self) -> None:
        """Poll, batch, commit, until told to stop."""
        with closing(self._housekeeping), closing(self._writer), closing(self._reader):
            while not self._stop.is_set():
                self.round()
            self._commit_rest()

    def round(self) -> None:
        """Do once all that the loop does."""
        if self._writer.busy and self._filling.is_full:
            self._finish_commit(HEARTBEAT_SECONDS)
            self._reader.heartbeat()
        else:
            if self._filling.waits:
                self._reader.heartbeat()
            else:
                self._see_to(self._reader.poll(0.1))
            self._filling.take()
            self._finish_commit()
        if self._filling.is_due and not self._writer.busy:
            self._begin_commit()
        self._housekeeping.look()
        if self._figures.due():
            self._report()
        self._health.needs(
            Kafka=self._reader.trouble, store=self._writer.trouble or self._store_away.trouble
        )
        self._health.alive()

    def is_behind(self) -> bool:
        """Whether anything that was taken from Kafka is not stored yet."""
        return self._writer.busy or bool(self._filling.batch.after or self._filling.waits)

    def _see_to(self, polled: Polled) -> None:
        if polled.lost:
            self._drop()
        if polled.gained:
            self._start_gained(polled)
        self._filling.polled(polled.messages)

    def _start_gained(self, polled: Polled) -> None:
        try:
            starts = self._starts.find(polled.gained, self._reader)
        except StreamGCNError as error:
            self._reader.postpone(error)
            return
        try:
            self._reader.start_at(starts)
        except TopicShorter as error:
            if self._starts.begin_another(error, self._reader):
                self._start_anew()

    def _begin_commit(self) -> bool:
        """Write the batch; False where it is not, or no more, of the log that is read."""
        if not self._starts.reading:
            return False  # the store has not told yet where to begin, so no batch is filled
        if not self._reader.is_same_log():
            self._start_anew()
            return False
        batch = self._filling.batch
        self._writer.begin(batch, self._starts.reading)
        self._starts.move_on(batch.after)
        self._filling.begin_next()
        return True

    def _finish_commit(self, seconds: float = 0.0) -> bool:
        """Take note of a stored batch; False if another consumer was quicker, so all is dropped."""
        try:
            stored = self._writer.wait_stored(seconds)
        except Fenced as error:
            log.warning(
                "Events of the batch are stored already (%s): another consumer was quicker, or the "
                "answer to a commit was lost. What is not stored is read again.",
                error,
            )
            self._start_anew()
            return False
        if stored:  # also a batch of rejected messages alone
            self._reader.commit(stored.after)
            self._stored.update(stored.counts)
            self._figures.metrics.observe("commit", [self._writer.commit_ms / 1000])
            self._housekeeping.committed()
        return True

    def _start_anew(self) -> None:
        """Ask the store again where each partition goes on."""
        self._drop()
        self._reader.restart()

    def _drop(self) -> None:
        """Drop what is not stored: it is the next owner's, or will be read again."""
        self._starts.drop()
        stored = self._writer.abandon()
        if stored:
            self._stored.update(stored.counts)
        self._filling.drop()

    def _commit_rest(self) -> None:
        until = time.monotonic() + LAST_COMMIT_SECONDS
        kept = self._finish_commit(LAST_COMMIT_SECONDS)
        if kept and not self._writer.busy and self._filling.batch.after:
            kept = self._begin_commit() and self._finish_commit(until - time.monotonic())
        if kept and not self.is_behind():
            log.info("Stopped; everything taken from Kafka is stored.")
        else:
            log.warning("Stopped; the last events could not be stored and will be read again.")

    def _look_at_store(self) -> None:
        """Count its rows; notice that it is away, or not what it was."""
        try:
            self._rows = self._store.count()
            changed = self._starts.what_became_of_the_store(self._writer.busy)
        except StoreError as error:
            if not self._writer.busy:  # which says so itself
                self._store_away.failed(error)
            return
        self._store_away.worked()
        if changed:
            log.warning(
                "The edge store was %s; the consumer goes on from the offsets stored in it.",
                changed,
            )
            self._start_anew()

    def _report(self) -> None:
        self._look_at_store()
        now = time.monotonic()
        rate = (self._stored["events"] - self._reported) / (now - self._reported_at)
        self._reported, self._reported_at = self._stored["events"], now
        self._figures.metrics.take({"conflicts": self._writer.conflicts})
        self._figures.report(
            "ingested",
            events=self._stored["events"],
            rate=f"{rate:.0f}/s",
            rejected=self._stored["rejected"],
            rows=self._rows,
            lag=self._reader.lag(),
            commit_ms=round(self._writer.commit_ms),
            unforeseen=self._stored["unforeseen"],
        )


def run(settings: ConsumerSettings, process: Running) -> None:
    """The process `streamgcn consumer`.

    Raises:
        Stopped: told to stop before it had all that it waits for.
        StreamError: the broker refuses.
    """
    # A poll makes tens of thousands of small objects, none of them in a cycle; looking through
    # them again and again, as Python's defaults do, takes a fifth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    with process.health.waiting("Kafka"):
        wait_for_topics(settings, process.stop, log)
    Ingest.join(settings, process.stop, process.figures, process.health).run()
