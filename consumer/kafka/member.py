"""A member of a consumer group: a client that has joined, and joins anew where Kafka forgot it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from contextlib import suppress

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import UnknownTopicOrPartitionError

from consumer.kafka.assignment import Assignment
from consumer.kafka.client import make_client
from consumer.kafka.joining import keep_join_answers
from consumer.kafka.reach import until_it_answers
from consumer.kafka.records import reading_client
from consumer.settings import ConsumerSettings
from process.health import Health
from process.shutdown import Stopped

# A dead member's partitions move on after this long; no less is allowed by a broker's default.
SESSION_MS = 6_000
HEARTBEAT_MS = 500  # with the next heartbeat a member hears that partitions move
POLL_RECORDS = 50_000  # more than a fetch brings: while all of it is decoded, the next one comes
FETCH_BYTES, FETCH_MS = 64 * 1024, 50  # the broker answers at so many bytes or after so long
METADATA_MS = 2_000  # a topic or partition created since is noticed after this long
# Who stays keeps partitions; range is for a group that has members of an older version too.
ASSIGNORS = (StickyPartitionAssignor, RangePartitionAssignor)
STUCK_SECONDS = 30.0  # a rebalance ends when the members that are gone have timed out, SESSION_MS
POLL_SECONDS = 1.0  # between two polls, unless the loop is busy with other things
PARTITIONS_SECONDS = 30.0  # a created topic is known to every broker within this


class Member:
    """The client of the group's member; the partitions that it gains and loses are noted."""

    def __init__(
        self,
        settings: ConsumerSettings,
        group: str,
        assignment: Assignment,
        stop: threading.Event,
        log: logging.Logger,
        health: Health,
    ) -> None:
        """Join the group, waiting for the broker.

        Raises:
            AccessRefused: the broker does not let this process in.
            Stopped: told to stop before it answered.
        """
        self._settings = settings
        self._topic = settings.kafka_topic
        self._group = group
        self._assignment = assignment
        self._stop = stop
        self._log = log
        self._health = health
        self._joining_since: float | None = None  # None while a member; later by busy seconds
        self._polled_at = 0.0
        self.admitted = False  # whether the group ever gave partitions to this process
        self._join()

    def join_anew(self) -> None:
        """Leave, and join with a new client; all partitions are lost.

        Raises:
            Stopped: told to stop before the broker answered.
        """
        self.leave()
        self._assignment.lose(self._assignment.all())
        self._join()

    def join_anew_if_stuck(self) -> None:
        """Join with a new client where a rebalance does not end; it was seen to hang for good.

        To be called at each poll. A loop that is busy, as with reading the edge store, leaves the
        group's answer to its next poll: these seconds do not count.

        Raises:
            Stopped: told to stop before the broker answered.
        """
        now = time.monotonic()
        busy = max(0.0, now - self._polled_at - POLL_SECONDS)
        self._polled_at = now
        if self._joining_since is None:
            return
        self._joining_since = min(now, self._joining_since + busy)
        if now - self._joining_since < STUCK_SECONDS:
            return
        self._log.warning(
            "The consumer group has not answered for %.0f s; joining it again.", STUCK_SECONDS
        )
        self.join_anew()

    def leave(self) -> None:
        """Leave the group."""
        self.client.close(autocommit=False, timeout_ms=2_000)

    def pause(self, partitions: Collection[int]) -> None:
        """Poll no messages of these partitions until they are resumed."""
        for partition in partitions:
            with suppress(KeyError):  # the client has dropped it
                self.client.pause(TopicPartition(self._topic, partition))

    def resume(self, partitions: Collection[int]) -> None:
        """Poll messages of these partitions again."""
        for partition in partitions:
            with suppress(KeyError):
                self.client.resume(TopicPartition(self._topic, partition))

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Note partitions that wait for a start before anything is read of them."""
        self._joining_since = None
        self.admitted = self.admitted or bool(partitions)
        for tp in partitions:
            with suppress(KeyError, ValueError):  # the client has dropped it already
                self.client.pause(tp)
                self.client.seek(tp, 0)  # anywhere: without an offset the client would look for one
        self._assignment.gain(tp.partition for tp in partitions)

    def revoked(self, partitions: set[TopicPartition]) -> None:
        """Note partitions that are another member's now, or will be."""
        # Rejoining for a change of the topic, the client (3.0.12) forgets that it does so if a
        # poll ends before the group has answered, and would never finish; this reminds it.
        self.client._coordinator.request_rejoin()
        self._joining_since = time.monotonic()
        self._assignment.lose(tp.partition for tp in partitions)

    def _join(self) -> None:
        with self._health.waiting("Kafka"):  # the client before stays until there is another
            self.client = until_it_answers(
                self._connect, self._settings, self._stop, self._log, running=self.admitted
            )
        # Before that, the group was asked for nothing.
        self._joining_since = self._polled_at = time.monotonic()
        self.client.subscribe([self._topic], listener=_Listener(self))

    def _connect(self) -> KafkaConsumer:
        client = make_client(
            reading_client,
            self._settings,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # every start is given; one that is not there is told
            isolation_level="read_committed",
            partition_assignment_strategy=ASSIGNORS,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_records=POLL_RECORDS,
            # A fetch for each message would cost client and broker more than all that follows.
            fetch_min_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_MS,
            metadata_max_age_ms=METADATA_MS,
            allow_auto_create_topics=False,  # who deletes a topic creates it anew, as it should be
        )
        keep_join_answers(client)
        try:
            self._await_partitions(client)
        except BaseException:
            client.close(autocommit=False, timeout_ms=2_000)
            raise
        return client

    def _await_partitions(self, client: KafkaConsumer) -> None:
        """Know the topic's partitions before the first poll, which joins.

        A member that joins without is given none, and rejoins at once when it learns of them.
        """
        deadline, wait = time.monotonic() + PARTITIONS_SECONDS, 0.1
        while self._topic not in client.topics():
            if time.monotonic() > deadline:
                raise UnknownTopicOrPartitionError(self._topic)
            if self._stop.wait(wait):
                raise Stopped(f"waiting for topic {self._topic}")
            wait = min(2 * wait, 1.0)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    def __init__(self, member: Member) -> None:
        self._member = member

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._member.assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._member.revoked(revoked)
