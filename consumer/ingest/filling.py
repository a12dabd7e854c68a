"""The next batch is filled with what was polled, until the batch is full; the rest waits."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Sequence

from consumer.ingest.batch import Batch
from consumer.ingest.decode import Rejected
from consumer.ingest.start_offsets import StartOffsets
from consumer.ingest.stretches import stretches
from consumer.kafka.client import Message
from consumer.settings import ConsumerSettings

# Of the longest wait; the rest is drawn, or consumers that began in step would commit in step.
LEAST_WAIT = 0.75
BATCH_BYTES = 32 * 1024 * 1024  # of rows; two batches, a stretch and a poll are held at most


class Filling:
    """The batch that is filled now, and the polled messages that are not decoded yet."""

    def __init__(
        self, settings: ConsumerSettings, starts: StartOffsets, log: logging.Logger
    ) -> None:
        self._settings = settings
        self._starts = starts
        self._log = log
        self._waiting: deque[Sequence[Message]] = deque()  # stretches that are not decoded yet
        self._polled_at = 0  # epoch microseconds; no clock that is put back can turn the order
        self.begin_next()

    @property
    def waits(self) -> bool:
        """Whether a polled message is not decoded yet."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the batch takes no more."""
        return self.batch.bytes >= BATCH_BYTES

    @property
    def is_due(self) -> bool:
        """Whether the batch has enough events, or has waited long enough, to be committed."""
        if not self.batch.after:
            return False
        if self.is_full or self.batch.events >= self._settings.commit_events:
            return True
        return time.monotonic() - self.batch.since >= self._wait

    def polled(self, messages: Sequence[Sequence[Message]]) -> None:
        """Note what a poll that has ended now brought: for each partition its messages."""
        self._polled_at = max(self._polled_at + 1, time.time_ns() // 1000)
        for each in messages:
            self._waiting.extend(stretches(each))

    def take(self) -> None:
        """Decode what was polled, until all is decoded or the batch is full."""
        rejected: list[Rejected] = []
        while self._waiting and not self.is_full:
            messages = self._waiting.popleft()
            position = self._starts.position(messages[0].partition)
            rejected += self.batch.take(messages, position, self._polled_at)
        if rejected:
            first = rejected[0]
            self._log.warning(
                "Rejected %d messages or rows, which go to topic %s; the first is at offset %d of "
                "partition %d: %s.", len(rejected), self._settings.dead_letter_topic,
                first.message.offset, first.message.partition, first.reason,
            )  # fmt: skip

    def begin_next(self) -> None:
        """Leave the batch to whoever commits it, and begin an empty one."""
        self.batch = Batch()
        self._wait = random.uniform(LEAST_WAIT, 1.0) * self._settings.commit_seconds

    def drop(self) -> None:
        """Drop the batch, and what was polled for it."""
        self.begin_next()
        self._waiting.clear()
