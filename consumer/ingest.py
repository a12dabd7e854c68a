"""The consumer's loop: Kafka -> events -> one commit of rows and offsets to the edge store."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pyarrow as pa

from consumer.counts import Counts
from consumer.dead_letters import DeadLetters
from consumer.edges import SCHEMA, Fenced, StoreError, wait_for_store
from consumer.events import EventError, decode
from consumer.log import Figures
from consumer.settings import ConsumerSettings
from consumer.stream import Message, Publisher, Stream, StreamError, wait_for_topics

log = logging.getLogger("consumer")

COMPACT_EVERY = 100  # commits
RETRY_SECONDS = 1.0  # between two tries to write to a store that refused


class Batch:
    """Events that are not stored yet, column by column, and the offsets they span."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.users: list[str] = []
        self.items: list[str] = []
        self.interactions: list[float] = []
        self.types: list[str] = []
        self.timestamps: list[int] = []
        self.partitions: list[int] = []
        self.offsets: list[int] = []
        self.first: dict[int, int] = {}  # partition -> offset the batch begins at
        self.after: dict[int, int] = {}  # partition -> offset to go on from
        self.since = time.monotonic()

    def __len__(self) -> int:
        return len(self.users)

    def span(self, message: Message, position: int) -> None:
        """Count the message as part of the batch, whether its events are valid or not."""
        if not self.after:
            self.since = time.monotonic()
        self.first.setdefault(message.partition, position)
        self.after[message.partition] = message.offset + 1

    def add(self, message: Message) -> None:
        """Add the message's events, all or none.

        Raises:
            EventError: the message is not valid.
        """
        for event in decode(message.value, message.timestamp):
            self.users.append(event.user_id)
            self.items.append(event.item_id)
            self.interactions.append(event.interaction)
            self.timestamps.append(event.timestamp)
            self.types.append(event.type)
            self.partitions.append(message.partition)
            self.offsets.append(message.offset)

    def table(self) -> pa.Table:
        """The events as rows of the edge store's schema."""
        microseconds = np.array(self.timestamps, np.int64) * 1000
        columns = [
            pa.array(self.users, pa.string()),
            pa.array(self.items, pa.string()),
            pa.array(self.interactions, pa.float64()),
            pa.array(self.types, pa.string()),
            pa.array(microseconds).cast(SCHEMA.field("timestamp").type),
            pa.array(self.partitions, pa.int32()),
            pa.array(self.offsets, pa.int64()),
        ]
        return pa.table(columns, schema=SCHEMA)


class Ingest:
    """One consumer: its store, its batch, its partitions."""

    def __init__(self, settings: ConsumerSettings, stop: threading.Event) -> None:
        """Wait for the store, then join the consumer group."""
        self._settings = settings
        self._stop = stop
        self._figures = Figures("consumer", settings.metrics_port)
        self._store = wait_for_store(settings.edge_store, settings.kafka_topic, stop, log)
        self._letters = DeadLetters(Publisher(settings), settings.kafka_topic)
        self._batch = Batch()
        self._counts = Counts()
        # partition -> stored offset, where the next batch begins
        self._position: dict[int, int] = {}
        self._refused_at = self._refused_since = 0.0
        self._commits = self._events = self._reported = self._edges = 0
        self._commit_ms = 0.0
        self._reported_at = time.monotonic()
        self._stream = Stream(settings, settings.kafka_group, log, self._start_at, self._on_revoked)

    def run(self) -> None:
        """Poll, batch, commit, until told to stop."""
        with self._stream:
            while not self._stop.is_set():
                if self._is_full():
                    self._stream.heartbeat()
                    self._stop.wait(0.1)
                else:
                    self._take(self._stream.poll(0.1))
                if self._should_commit():
                    self._commit()
                if self._figures.due():
                    self._report()
            self._commit()
        log.info("Stopped; everything taken from Kafka is stored.")

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            self._batch.span(message, self._position.get(message.partition, message.offset))
            try:
                self._batch.add(message)
            except EventError as error:
                self._letters.reject(message, error)
                log.warning(
                    "Rejected partition %d offset %d: %s", message.partition, message.offset, error
                )

    def _should_commit(self) -> bool:
        if not self._batch.after or time.monotonic() - self._refused_at < RETRY_SECONDS:
            return False
        full = len(self._batch) >= self._settings.commit_events
        return full or time.monotonic() - self._batch.since >= self._settings.commit_seconds

    def _is_full(self) -> bool:
        """Whether the store lags so far behind that no more may be taken."""
        return self._refused_at > 0 and len(self._batch) >= self._settings.commit_events

    def _commit(self) -> None:
        batch = self._batch
        if not batch.after:
            return
        started = time.monotonic()
        try:
            self._letters.flush()
            self._store.append(batch.table(), batch.first, batch.after)
        except Fenced as error:
            log.warning(
                "Fenced: %s. Dropping %d events and starting again there.", error, len(batch)
            )
            batch.clear()
            self._position.clear()
            self._stream.restart()
            return
        except (StoreError, StreamError) as error:
            if not self._refused_at:
                self._refused_since = time.time()
                log.warning(
                    "Cannot commit (%s); keeping %d events and trying again.", error, len(batch)
                )
            self._refused_at = time.monotonic()
            return
        if self._refused_at:
            log.info("Committing again after %.0f s.", time.time() - self._refused_since)
            self._refused_at = 0.0
        self._commit_ms = (time.monotonic() - started) * 1000
        self._events += len(batch)
        self._position |= batch.after
        self._stream.commit(batch.after)
        batch.clear()
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self._compact()

    def _compact(self) -> None:
        try:
            self._store.compact()
        except StoreError as error:
            log.warning("Compaction failed and will be tried again later: %s", error)

    def _start_at(self, partition: int) -> int | None:
        offset = self._store.next_offset(partition)
        self._position.pop(partition, None)
        if offset is not None:
            self._position[partition] = offset
        return offset

    def _on_revoked(self) -> None:
        self._commit()
        self._batch.clear()  # what could not be stored now is the next owner's
        self._position.clear()

    def _report(self) -> None:
        try:
            self._counts.grow(self._store)
            self._edges = self._store.count()
        except StoreError:
            pass  # the commit says so; the counts are as they were
        now = time.monotonic()
        rate = (self._events - self._reported) / (now - self._reported_at)
        self._reported, self._reported_at = self._events, now
        self._figures.report(
            "ingested",
            events=self._events,
            rate=f"{rate:.0f}/s",
            rejected=self._letters.count,
            edges=self._edges,
            users=self._counts.users,
            items=self._counts.items,
            lag=self._stream.lag(),
            commit_ms=round(self._commit_ms),
        )


def run(settings: ConsumerSettings, stop: threading.Event) -> None:
    """The process `streamgcn consumer`.

    Raises:
        TopicShorter: the topic was created anew since the store was filled.
    """
    wait_for_topics(settings, stop, log)
    if not stop.is_set():
        Ingest(settings, stop).run()
