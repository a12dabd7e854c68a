"""A member of a consumer group on a real broker, as reading.py describes it to the loops.

reading.py      what a loop polls and answers
assignment.py   which partitions wait for a start, are read, or were lost
member.py       the client that joins the group
joining.py      an answer of the group that comes between two polls
admission.py    whether the broker answers and lets the member in
offsets.py      where partitions begin and end
identity.py     whether the topic was created anew

This file is longer than 250 lines because each call of a loop has a short method here, and all of
them share the state of one membership.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Self

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from consumer.kafka import offsets
from consumer.kafka.admission import Admission
from consumer.kafka.assignment import Assignment
from consumer.kafka.client import StreamError, TopicShorter, words
from consumer.kafka.identity import ask, known_id
from consumer.kafka.member import Member
from consumer.kafka.reading import Polled
from consumer.settings import ConsumerSettings
from process.health import Health
from process.outage import Outage

SHORT_SECONDS = 10.0  # a new leader may for a moment tell an end behind what was given out
START_SECONDS = 2.0  # between two questions where a partition starts, at most


class Subscription:
    """The partitions of the topic that this member of `group` has at the moment."""

    def __init__(
        self,
        settings: ConsumerSettings,
        group: str,
        log: logging.Logger,
        stop: threading.Event,
        health: Health | None = None,
    ) -> None:
        """Join the group, waiting for the broker.

        Args:
            health: is told while the broker is waited for.

        Raises:
            AccessRefused: the broker does not let this process in.
            Stopped: told to stop before it answered.
        """
        self._settings = settings
        self._topic = settings.kafka_topic
        self._group = group
        self._log = log
        self._stop = stop
        self._starting = Outage(
            log,
            f"Some partitions of topic {self._topic} cannot be read yet",
            f"All partitions of topic {self._topic} can be read",
            START_SECONDS,
        )
        self._ask_at = 0.0  # when the owner is asked for starts again
        self._short_since: float | None = None  # when a partition was first too short for its start
        self._lags: dict[int, int] = {}  # partition -> messages that were not polled yet
        self.topic_id: str | None = None
        self._assignment = Assignment()
        self._admission = Admission(settings, group, log)
        self._member = Member(settings, group, self._assignment, stop, log, health or Health())

    def poll(self, seconds: float) -> Polled:
        """As `Reader.poll`."""
        if self._is_kept_out():
            lost, _ = self._changes(ask=False)
            if not lost:
                self._stop.wait(seconds)
            return Polled(lost)
        self._member.join_anew_if_stuck()
        can_start = self._can_start()
        if self._is_another_log():
            return Polled(lost=self._start_over())
        lost, gained = self._changes(ask=can_start)
        if lost or gained:
            return Polled(lost, gained)
        try:
            polled = self._member.client.poll(timeout_ms=int(seconds * 1000))
        except OffsetOutOfRangeError:
            return Polled(lost=self._start_over())  # `start_at` tells what became of the topic
        except KafkaError as error:
            self._admission.refused(error, self._member.admitted)
            polled = {}
        if polled:
            self._admission.answered()
        else:
            self._admission.nothing_came(self._member.client, self._member.admitted)
        reading = self._assignment.reading()  # others were lost meanwhile, and will be read again
        return Polled(messages=[each for tp, each in polled.items() if tp.partition in reading])

    def start_at(self, starts: Mapping[int, int | None]) -> None:
        """As `Reader.start_at`."""
        started = []
        for partition, start in sorted(starts.items()):
            if not self._assignment.claim(partition):
                continue
            try:
                self._go_to(self._tp(partition), start)
                started.append(partition)
            except (IllegalStateError, KeyError, ValueError):  # it was lost this moment
                self._assignment.unclaim(partition)
            except (KafkaError, StreamError) as error:
                self._assignment.unclaim(partition)
                self._ask_again_after(error)
                break
        if started:
            self._log.info("Reading partitions %s.", started)
        if not self._assignment.waits:
            self._starting.worked()
            self._short_since = None

    def postpone(self, error: Exception) -> None:
        """As `Reader.postpone`."""
        self._ask_at = time.monotonic() + self._starting.failed(words(error))

    def restart(self) -> None:
        """As `Reader.restart`."""
        self._start_over()

    def heartbeat(self) -> None:
        """As `Reader.heartbeat`."""
        if self._is_kept_out():
            return
        reading = self._assignment.reading()
        try:
            self._member.pause(reading)
            self._member.client.poll(timeout_ms=0)
        except KafkaError as error:
            self._admission.refused(error, self._member.admitted)
        finally:
            self._member.resume(reading & self._assignment.reading())

    def is_same_log(self) -> bool:
        """As `Reader.is_same_log`."""
        try:
            ask(self._member.client)
        except KafkaError:
            return True
        return known_id(self._member.client, self._topic) in (None, self.topic_id)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """As `Reader.commit`."""
        note = self.topic_id or ""
        self._member.client.commit_async(
            {self._tp(p): OffsetAndMetadata(offset, note, -1) for p, offset in offsets.items()},
            callback=lambda *_: None,  # a lost one is made good by the next
        )

    def committed(self, partition: int) -> int | None:
        """As `Reader.committed`."""
        client = self._member.client
        return offsets.committed(client, self._settings, self._group, partition, self.topic_id)

    def first(self, partition: int) -> int:
        """As `Reader.first`."""
        return offsets.first(self._member.client, self._settings, partition)

    def ends(self, offsets_: Mapping[int, int]) -> dict[int, int]:
        """As `Reader.ends`."""
        return offsets.ends(self._member.client, self._settings, offsets_)

    def lag(self) -> int:
        """As `Reader.lag`."""
        # Where a partition waits for a start, or the broker is away, the last number counts.
        with suppress(KafkaError):
            reading = self._assignment.reading()
            self._lags |= offsets.lags(self._member.client, self._topic, reading)
        self._lags = {p: self._lags.get(p, 0) for p in self._assignment.all()}
        return sum(self._lags.values())

    def partitions(self) -> set[int]:
        """As `Reader.partitions`."""
        return self._assignment.all()

    @property
    def has_lost(self) -> bool:
        """As `Reader.has_lost`."""
        return self._assignment.has_lost

    @property
    def n_partitions(self) -> int:
        """As `Reader.n_partitions`."""
        return len(self._member.client.partitions_for_topic(self._topic) or ())

    @property
    def trouble(self) -> str:
        """As `Reader.trouble`."""
        return self._admission.trouble or self._starting.trouble

    def close(self) -> None:
        """As `Reader.close`."""
        self._member.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_kept_out(self) -> bool:
        if self._admission.is_kept_out():
            return True
        if self._admission.needs_new_client():
            self._member.join_anew()
        return False

    def _can_start(self) -> bool:
        """Whether partitions wait for a start, and the broker has told what the topic is now."""
        if not self._assignment.waits or time.monotonic() < self._ask_at:
            return False
        try:
            ask(self._member.client)
        except KafkaError as error:
            self.postpone(error)
            return False
        return True

    def _ask_again_after(self, error: Exception) -> None:
        self.postpone(error)
        if isinstance(error, TopicShorter):
            self._short_since = self._short_since or time.monotonic()
            if time.monotonic() - self._short_since > SHORT_SECONDS:
                raise error

    def _changes(self, ask: bool) -> tuple[Collection[int], Collection[int]]:
        lost, gained = self._assignment.changes(ask)
        if lost:
            self._log.info(
                "Stopped reading partitions %s: the consumer group shares the partitions anew.",
                sorted(lost),
            )
        return lost, gained

    def _is_another_log(self) -> bool:
        """Whether the topic was created anew since it was read."""
        before = self.topic_id
        self.topic_id = known_id(self._member.client, self._topic) or before
        return before not in (None, self.topic_id)

    def _start_over(self) -> Collection[int]:
        """Have all partitions started again; returns those that the owner knows of."""
        known = self._assignment.start_over()
        self._member.pause(known)
        self._ask_at = 0.0
        return known

    def _go_to(self, tp: TopicPartition, start: int | None) -> None:
        client = self._member.client
        first, end = offsets.bounds(client, self._settings, tp, start or 0)
        client.seek(tp, offsets.begin_at(tp, start, first, end, self._log))
        client.resume(tp)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)
