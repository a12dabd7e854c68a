"""The consumer's loop: Kafka -> rows -> one commit of rows and offsets to the edge store.

While one batch is written, the next is filled.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence

from consumer.edge.store import Fenced, Log, StoreError
from consumer.ingest.batch import Batch
from consumer.ingest.commit import Writer
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.decode import Rejected, stretches
from consumer.ingest.housekeeping import Housekeeping
from consumer.ingest.opening import open_store
from consumer.kafka.client import Message, TopicShorter
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.health import Health
from process.log import Figures
from process.outage import Outage
from process.running import Running

log = logging.getLogger("consumer")

BATCH_BYTES = 32 * 1024 * 1024  # of rows; two batches, a stretch and a poll are held at most
HEARTBEAT_SECONDS = 1.0  # between two signs of life while nothing more can be taken
LAST_COMMIT_SECONDS = 5.0  # given to the store when told to stop


class Ingest:
    """One consumer: its store, its batch, its partitions."""

    def __init__(
        self,
        settings: ConsumerSettings,
        stop: threading.Event,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> None:
        """Wait for the store, then join the consumer group."""
        self._settings = settings
        self._stop = stop
        self._figures = figures or Figures("consumer")
        self._health = health or Health()
        with self._health.waiting("the edge store"):  # one for each thread
            self._store, store = (open_store(settings, stop, log) for _ in range(2))
        self._store_away = Outage(log, "The edge store cannot be read", "The edge store is back")
        self._log: Log | None = None  # that is read
        self._known: Log | None = None  # that was read last
        self._writer = Writer(store, DeadLetters(settings), log)
        self._housekeeping = Housekeeping(settings, log)
        self._batch = Batch()
        self._polled: deque[Sequence[Message]] = deque()  # stretches that are not decoded yet
        self._position: dict[int, int] = {}  # partition -> offset at which the next batch begins
        self._events = self._rejected = self._unforeseen = self._reported = self._edges = 0
        self._reported_at = time.monotonic()
        self._polled_at = 0  # epoch microseconds; no clock that is put back can turn the order
        group = settings.kafka_group
        self._subscription = Subscription(settings, group, log, stop, self._health)

    def run(self) -> None:
        """Poll, batch, commit, until told to stop."""
        try:
            with self._subscription:
                while not self._stop.is_set():
                    self._round()
                self._commit_rest()
        finally:
            self._writer.close()
            self._housekeeping.close()

    def _round(self) -> None:
        if self._is_full():
            self._finish_commit(HEARTBEAT_SECONDS)
            self._subscription.heartbeat()
        else:
            if self._polled:
                self._subscription.heartbeat()
            else:
                self._poll()
            self._take()
            self._finish_commit()
        if self._should_commit():
            self._begin_commit()
        self._housekeeping.look()
        if self._figures.due():
            self._report()
        self._health.needs(
            Kafka=self._subscription.trouble, store=self._writer.trouble or self._store_away.trouble
        )
        self._health.alive()

    def _poll(self) -> None:
        polled = self._subscription.poll(0.1)
        self._polled_at = max(self._polled_at + 1, time.time_ns() // 1000)
        if polled.lost:
            self._drop()
        if polled.gained:
            self._place(polled.gained)
        for messages in polled.messages:
            self._polled.extend(stretches(messages))

    def _take(self) -> None:
        """Decode what was polled, until all is or the batch is full."""
        rejected: list[Rejected] = []
        while self._polled and self._batch.bytes < BATCH_BYTES:
            messages = self._polled.popleft()
            position = self._position.get(messages[0].partition)
            rejected += self._batch.take(messages, position, self._polled_at)
        if rejected:
            self._rejected += len(rejected)
            self._unforeseen += sum(each.unforeseen for each in rejected)
            first = rejected[0]
            log.warning(
                "Rejected %d messages or rows; the first is at offset %d of partition %d: %s.",
                len(rejected), first.message.offset, first.message.partition, first.reason,
            )  # fmt: skip

    def _is_full(self) -> bool:
        return self._writer.busy and self._batch.bytes >= BATCH_BYTES

    def _should_commit(self) -> bool:
        if self._writer.busy or not self._batch.after:
            return False
        full = len(self._batch) >= self._settings.commit_events or self._batch.bytes >= BATCH_BYTES
        return full or time.monotonic() - self._batch.since >= self._settings.commit_seconds

    def _begin_commit(self) -> None:
        if not self._log:
            return  # nothing is read before it is known
        if not self._subscription.is_same_log():
            self._start_anew()
            return
        self._writer.begin(self._batch, self._log)
        self._position |= self._batch.after
        self._batch = Batch()

    def _finish_commit(self, seconds: float = 0.0) -> None:
        """Take note of a batch that is stored; drop everything if another consumer was quicker."""
        try:
            stored = self._writer.stored(seconds)
        except Fenced as error:
            log.warning(
                "Another consumer has stored events of the same partition (%s). What this one has "
                "not stored is read again.",
                error,
            )
            self._start_anew()
            return
        if stored:
            self._subscription.commit(stored.after)
            self._events += len(stored)
            self._figures.metrics.observe("commit", [self._writer.commit_ms / 1000])
            self._housekeeping.committed()

    def _place(self, gained: Collection[int]) -> None:
        """Go on in each partition at what the edge store holds of it."""
        try:
            starts = {partition: self._start_of(partition) for partition in gained}
        except StreamGCNError as error:
            self._subscription.postpone(error)
            return
        try:
            self._subscription.place(starts)
        except TopicShorter as error:
            self._begin_another(error)

    def _start_of(self, partition: int) -> int | None:
        self._log = self._log or self._find_log()
        offset = self._store.next_offset(partition, self._log)
        self._position.pop(partition, None)
        if offset is not None:
            self._position[partition] = offset
        return offset

    def _find_log(self) -> Log:
        """The log that the topic's name stands for now; the store learns of it if it is another."""
        topic, topic_id = self._settings.kafka_topic, self._subscription.topic_id
        before = self._known
        found = self._store.log(topic_id)
        begun = found is None
        if found is None:
            stored = self._store.before_logs()
            ends = self._subscription.ends(stored) if stored else {}
            another = any(offset > ends.get(p, 0) for p, offset in stored.items())
            found = self._store.begin_log(topic_id, known=None, another=another)
        if (begun and found.number) or (before and before != found and before.table == found.table):
            log.warning(
                "Topic %s was created anew: this is another log, number %d in the edge store. What "
                "is stored stays, and the events of the new log come after it.",
                topic, found.number,
            )  # fmt: skip
        self._known = found
        return found

    def _begin_another(self, error: TopicShorter) -> None:
        """Read the topic from its start as another log: what is behind its end was lost."""
        try:
            self._store.begin_log(self._subscription.topic_id, self._log or self._known)
        except StoreError as failed:
            log.warning("%s; another log cannot be begun yet: %s.", error, failed)
            return
        log.warning(
            "%s. Kafka has lost messages, nothing tells where, so the topic is read from its start "
            "as another log, whose events come after what is stored.", error,
        )  # fmt: skip
        self._start_anew()

    def _start_anew(self) -> None:
        """Ask the store again where each partition goes on."""
        self._drop()
        self._subscription.restart()

    def _drop(self) -> None:
        """Drop what is not stored: it is the next owner's, or will be read again."""
        self._log = None
        stored = self._writer.drop()
        self._events += len(stored or ())
        self._batch = Batch()
        self._polled.clear()
        self._position.clear()

    def _commit_rest(self) -> None:
        until = time.monotonic() + LAST_COMMIT_SECONDS
        self._finish_commit(LAST_COMMIT_SECONDS)
        if not self._writer.busy and self._batch.after:
            self._begin_commit()
            self._finish_commit(until - time.monotonic())
        if self._writer.busy:
            log.warning("Stopped; the last events could not be stored and will be read again.")
        else:
            log.info("Stopped; everything taken from Kafka is stored.")

    def _look_at_store(self) -> None:
        """Count its rows; notice that it is away, or not what it was."""
        try:
            self._edges = self._store.count()
            changed = self._changed()
        except StoreError as error:
            if not self._writer.busy:  # which says so itself
                self._store_away.failed(error)
            return
        self._store_away.worked()
        if changed:
            log.warning("The edge store was %s; going on after what it holds.", changed)
            self._start_anew()

    def _changed(self) -> str:
        """What became of the store that was written, if anything; no commit may come to notice."""
        if not self._log:
            return ""
        if self._store.id != self._log.table:
            return "replaced by another one"
        if self._writer.busy:
            return ""
        stored = self._store.offsets(list(self._position), self._log)
        lacks = any(stored.get(p, 0) < offset for p, offset in self._position.items())
        return "put back to an older state" if lacks else ""

    def _report(self) -> None:
        self._look_at_store()
        now = time.monotonic()
        rate = (self._events - self._reported) / (now - self._reported_at)
        self._reported, self._reported_at = self._events, now
        self._figures.report(
            "ingested",
            events=self._events,
            rate=f"{rate:.0f}/s",
            rejected=self._rejected,
            edges=self._edges,
            lag=self._subscription.lag(),
            commit_ms=round(self._writer.commit_ms),
            unforeseen=self._unforeseen,
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
    Ingest(settings, process.stop, process.figures, process.health).run()
