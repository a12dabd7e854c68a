"""The partitions that a member of a consumer group reads, each from where the owner says.

    polled = subscription.poll(0.1)
    if polled.lost:
        drop everything that was made of messages and is not stored
    if polled.gained:
        subscription.place({partition: offset for partition in polled.gained})
    for messages in polled.messages:
        take them

The consumer's places are what the edge store holds, never Kafka's committed offsets; serving's are
the lower of both. Where the owner does not know a place yet, it answers `postpone` and is asked
again. A broker that does not answer is waited for.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)

from consumer.kafka.access import check_access
from consumer.kafka.assignment import Assignment
from consumer.kafka.client import (
    CHECK_MS,
    AccessRefused,
    Message,
    StreamError,
    TopicShorter,
    in_words,
    make_client,
)
from consumer.kafka.identity import ask, known_id
from consumer.kafka.reach import broker_outage, log_reader, until_it_answers
from consumer.kafka.records import reading_client
from consumer.settings import ConsumerSettings
from process.health import Health
from process.outage import Outage
from process.shutdown import Stopped

SESSION_MS = 6_000  # a dead member's partitions move on after this long
POLL_RECORDS = 50_000  # more than a fetch brings: while all of it is decoded, the next one comes
FETCH_BYTES, FETCH_MS = 64 * 1024, 50  # the broker answers at so many bytes or after so long
CHECK_EVERY = 5.0  # seconds of silence after which the broker is asked whether it is there
SHORT_SECONDS = 10.0  # a new leader may for a moment tell an end behind what was given out
STUCK_SECONDS = 30.0  # a rebalance ends when the members that are gone have timed out, SESSION_MS
PARTITIONS_SECONDS = 30.0  # a created topic is known to every broker within this
METADATA_MS = 5_000  # a topic or partition created since is noticed after this long
PLACE_SECONDS = 2.0  # between two questions where a partition starts, at most


class Polled(NamedTuple):
    """What happened since the last poll, in the order in which the owner sees to it.

    lost: partitions that the owner reads no more. If there is any, it is all that the owner has;
        what this process still reads of them is in a later `gained`.
    gained: partitions that wait for `place`, told again until they are placed or lost.
    messages: of placed partitions; of each partition in order.
    """

    lost: Collection[int] = ()
    gained: Collection[int] = ()
    messages: Sequence[Sequence[Message]] = ()


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
        """
        self._settings = settings
        self._topic = settings.kafka_topic
        self._address = settings.kafka_bootstrap_servers
        self._log = log
        self._assignment = Assignment()
        self._placing = Outage(
            log,
            f"Some partitions of topic {self._topic} cannot be read yet",
            f"All partitions of topic {self._topic} can be read",
            PLACE_SECONDS,
        )
        self._ask_at = 0.0  # when the owner is asked for places again
        self._short_since: float | None = None  # when a partition was first too short for its place
        self._lag = 0
        self._heard = time.monotonic()
        self._outage = broker_outage(log)
        self._group = group
        self._health = health or Health()
        self._stop = stop
        self._joining_since: float | None = None  # None while a member
        self._admitted = False  # whether the group ever gave partitions to this process
        self._shut_out = False  # whether the client has to be made anew once it is let in
        self._again = 0.0  # when the broker is asked again after it refused
        self.topic_id: str | None = None  # of what is read; None where the broker gives none
        self._join()

    def poll(self, seconds: float) -> Polled:
        """What was lost and gained, or else the next messages; waits `seconds` for the first.

        Raises:
            AccessRefused: a right is missing from the start; later it is waited for.
            StreamError: the broker refuses.
        """
        if self._kept_out():
            self._stop.wait(seconds)
            return Polled()
        self._join_anew_if_stuck()
        can_be_placed = self._can_be_placed()
        if self._is_another_log():
            return Polled(lost=self._start_over())
        lost, gained = self._assignment.changes(ask=can_be_placed)
        if lost:
            self._log.info("Revoked partitions %s.", sorted(lost))
        if lost or gained:
            return Polled(lost, gained)
        try:
            polled = self._consumer.poll(timeout_ms=int(seconds * 1000))
        except OffsetOutOfRangeError:
            return Polled(lost=self._start_over())  # `place` tells what became of the topic
        except KafkaError as error:
            self._refused(error)
            polled = {}
        if polled:
            self._answered()
        elif time.monotonic() - self._heard > CHECK_EVERY:
            self._check()
        placed = self._assignment.placed()  # others were lost meanwhile, and will be read again
        return Polled(messages=[each for tp, each in polled.items() if tp.partition in placed])

    def place(self, starts: Mapping[int, int | None]) -> None:
        """Read partitions from now on, if they were not lost since they were told as gained.

        Where the broker cannot be asked, or a partition ends before its start, it will be told as
        gained again.

        Args:
            starts: partition -> offset to begin at, None for the earliest.

        Raises:
            TopicShorter: for some time a partition has ended before its start.
        """
        placed = []
        for partition, start in sorted(starts.items()):
            if not self._assignment.claim(partition):
                continue
            try:
                self._seek(self._tp(partition), start)
                placed.append(partition)
            except (IllegalStateError, KeyError, ValueError):  # it was lost this moment
                self._assignment.unclaim(partition)
            except (KafkaError, StreamError) as error:
                self._assignment.unclaim(partition)
                self._postpone(error)
                break
        if placed:
            self._log.info("Assigned partitions %s.", placed)
        if not self._assignment.waits:
            self._placing.worked()
            self._short_since = None

    def postpone(self, error: Exception) -> None:
        """The owner's answer if it does not know where to start; it will be asked again."""
        self._ask_at = time.monotonic() + self._placing.failed(error)

    def heartbeat(self) -> None:
        """Stay a member of the group without taking messages."""
        if self._kept_out():
            return
        placed = self._assignment.placed()
        try:
            self._pause(placed)
            self._consumer.poll(timeout_ms=0)
        except KafkaError as error:
            self._refused(error)
        finally:
            self._resume(placed & self._assignment.placed())

    def restart(self) -> None:
        """Ask again where each partition starts, and go there. The owner has dropped everything."""
        self._start_over()

    def is_same_log(self) -> bool:
        """Whether what was read is of the log that the topic's name stands for now.

        Asks the broker; where it does not answer, nothing speaks against it.
        """
        try:
            ask(self._consumer)
        except KafkaError:
            return True
        return known_id(self._consumer, self._topic) in (None, self.topic_id)

    def ends(self, offsets: Mapping[int, int]) -> dict[int, int]:
        """Where the topic's partitions end: partition -> offset; those of `offsets` for certain.

        Raises:
            StreamError: the broker does not answer.
        """
        partitions = [self._tp(number) for number in self.all_partitions()]
        try:
            ends = self._consumer.end_offsets(partitions, timeout_ms=CHECK_MS) if partitions else {}
        except KafkaError as error:
            raise in_words(error, self._settings, f"READ topic {self._topic}") from error
        return {
            tp.partition: self._read_end(tp, end) if end < offsets.get(tp.partition, 0) else end
            for tp, end in ends.items()
        }

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka how far the group is in this log; not waited for."""
        note = self.topic_id or ""
        self._consumer.commit_async(
            {self._tp(p): OffsetAndMetadata(offset, note, -1) for p, offset in offsets.items()},
            callback=lambda *_: None,  # a lost one is made good by the next
        )

    def committed(self, partition: int) -> int | None:
        """The offset that the group has committed in this log, None if there is none.

        Raises:
            StreamError: the broker does not answer.
        """
        tp = self._tp(partition)
        try:
            found = self._consumer.committed(tp, metadata=True, timeout_ms=CHECK_MS)
        except KafkaError as error:
            raise in_words(error, self._settings, f"READ group {self._group}") from error
        of_this_log = found and found.metadata in (None, "", self.topic_id)
        return int(found.offset) if of_this_log else None

    def lag(self) -> int:
        """Messages of the assigned partitions that were not polled yet, as the broker counts."""
        assigned = list(self._consumer.assignment())
        try:
            ends = self._consumer.end_offsets(assigned, timeout_ms=CHECK_MS) if assigned else {}
            self._lag = sum(
                max(0, self._end(tp, end) - (self._consumer.position(tp, timeout_ms=0) or 0))
                for tp, end in ends.items()
            )
        except KafkaError:
            pass  # the broker is away; the last known
        return self._lag

    def partitions(self) -> set[int]:
        """The partitions that this member has now, placed or not."""
        return self._assignment.all()

    @property
    def trouble(self) -> str:
        """Why nothing comes from the broker; empty while it answers."""
        return self._outage.trouble

    def all_partitions(self) -> list[int]:
        """Partitions of the topic, whoever reads them."""
        return sorted(self._consumer.partitions_for_topic(self._topic) or ())

    @property
    def n_partitions(self) -> int:
        """Number of the topic's partitions, whoever reads them."""
        return len(self.all_partitions())

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Note partitions that must be placed before anything is read of them."""
        self._joining_since = None
        self._admitted = self._admitted or bool(partitions)
        numbers = {tp.partition for tp in partitions}
        self._pause(numbers)
        for tp in partitions:
            self._consumer.seek(tp, 0)  # anywhere: without a place the client would look for one
        self._assignment.gain(numbers)

    def revoked(self, partitions: set[TopicPartition]) -> None:
        """Note partitions that are another member's now, or will be."""
        # Rejoining for a change of the topic, the client (3.0.12) forgets that it does so if a
        # poll ends before the group has answered, and would never finish; this reminds it.
        self._consumer._coordinator.request_rejoin()
        self._joining_since = time.monotonic()
        self._assignment.lose(tp.partition for tp in partitions)

    def _join(self) -> None:
        self._joining_since = time.monotonic()
        with self._health.waiting("Kafka"):
            consumer = until_it_answers(
                self._client, self._settings, self._stop, self._log, running=self._admitted
            )
        if consumer is None:  # the one before stays, and is closed with the stream
            raise Stopped(f"waiting for Kafka at {self._address}")
        self._consumer = consumer
        self._consumer.subscribe([self._topic], listener=_Listener(self))

    def _client(self) -> KafkaConsumer:
        consumer = make_client(
            reading_client,
            self._settings,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # every start is given; one that is not there is told
            isolation_level="read_committed",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 3,
            max_poll_records=POLL_RECORDS,
            # A fetch for each message would cost client and broker more than all that follows.
            fetch_min_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_MS,
            metadata_max_age_ms=METADATA_MS,
            allow_auto_create_topics=False,  # who deletes a topic creates it anew, as it should be
        )
        try:
            self._await_partitions(consumer)
        except BaseException:
            consumer.close(autocommit=False, timeout_ms=2_000)
            raise
        return consumer

    def _await_partitions(self, consumer: KafkaConsumer) -> None:
        """Know the topic's partitions before the first poll, which joins.

        A member that joins without is given none, and rejoins at once when it learns of them.
        """
        deadline = time.monotonic() + PARTITIONS_SECONDS
        while self._topic not in consumer.topics():
            if time.monotonic() > deadline:
                raise UnknownTopicOrPartitionError(f"topic {self._topic} is not there")
            if self._stop.wait(0.1):
                raise Stopped(f"waiting for topic {self._topic}")

    def _join_anew_if_stuck(self) -> None:
        """Join with a new client where a rebalance does not end; it was seen to hang for good."""
        since = self._joining_since
        if since is None or time.monotonic() - since < STUCK_SECONDS:
            return
        self._log.warning(
            "The consumer group has not answered for %.0f s; joining it again.", STUCK_SECONDS
        )
        self.close()
        self._assignment.lose(self.partitions())
        self._join()

    def _can_be_placed(self) -> bool:
        """Whether partitions wait for a place, and the broker has told what the topic is now."""
        if not self._assignment.waits or time.monotonic() < self._ask_at:
            return False
        try:
            ask(self._consumer)
        except KafkaError as error:
            self.postpone(error)
            return False
        return True

    def _postpone(self, error: Exception) -> None:
        self.postpone(error)
        if isinstance(error, TopicShorter):
            self._short_since = self._short_since or time.monotonic()
            if time.monotonic() - self._short_since > SHORT_SECONDS:
                raise error

    def _is_another_log(self) -> bool:
        """Whether the topic's name stands for another log than what was read."""
        before = self.topic_id
        self.topic_id = known_id(self._consumer, self._topic) or before
        return before not in (None, self.topic_id)

    def _start_over(self) -> Collection[int]:
        """Have all partitions placed again; returns those that the owner knows of."""
        known = self._assignment.start_over()
        self._pause(known)
        self._ask_at = 0.0
        return known

    def _seek(self, tp: TopicPartition, stored: int | None) -> None:
        first = self._consumer.beginning_offsets([tp], timeout_ms=CHECK_MS)[tp]
        end = self._consumer.end_offsets([tp], timeout_ms=CHECK_MS)[tp]
        offset = first if stored is None else stored
        if offset > end and offset > (end := self._read_end(tp, end)):
            raise TopicShorter(
                f"partition {tp.partition} of topic {self._topic} ends before offset {offset}, up "
                "to which the edge store holds it"
            )
        if offset < first:
            self._log.error(
                "Kafka's retention has deleted the offsets %d to %d of partition %d unread; going "
                "on after them. Lengthen the topic's retention.ms, or let the consumer run always.",
                offset, first - 1, tp.partition,
            )  # fmt: skip
            offset = first
        self._consumer.seek(tp, offset)
        self._consumer.resume(tp)

    def _end(self, tp: TopicPartition, end: int) -> int:
        """The later of the asked end and of that told with the last messages."""
        return max(end, self._consumer.highwater(tp) or 0)

    def _read_end(self, tp: TopicPartition, end: int) -> int:
        """Where the partition really ends; the embedded broker counts without its last batch."""
        with log_reader(self._settings) as reader:
            reader.assign([tp])
            reader.seek(tp, end)
            while reader.poll(timeout_ms=500):
                pass
            return int(reader.position(tp))

    def _pause(self, partitions: Collection[int]) -> None:
        for tp in map(self._tp, partitions):
            with suppress(KeyError):  # the client has dropped it
                self._consumer.pause(tp)

    def _resume(self, partitions: Collection[int]) -> None:
        for tp in map(self._tp, partitions):
            with suppress(KeyError):
                self._consumer.resume(tp)

    def _check(self) -> None:
        """Ask the broker whether it is there, and if not, why."""
        self._heard = time.monotonic()
        partitions = list(self._consumer.assignment()) or [self._tp(0)]
        try:
            self._consumer.end_offsets(partitions, timeout_ms=CHECK_MS)
        except AuthorizationError as error:
            self._refused(error)
            return
        except KafkaError as error:
            try:
                check_access(self._settings)
            except AccessRefused as refused:
                self._shut_out = True
                self._wait(refused)
            except OSError as away:
                self._outage.failed(away)
            else:
                self._outage.failed(error)
            gc.collect(1)  # each try of the client leaves a socket open, in a cycle
            return
        if self._heard - self._again > CHECK_EVERY:  # a right that is missing would be told by then
            self._answered()

    def _refused(self, error: KafkaError) -> None:
        """Wait while the broker refuses what it allowed before, as a right or a password.

        Raises:
            AccessRefused, StreamError: it has never allowed it.
        """
        if error.retriable:
            return
        of_group = isinstance(error, GroupAuthorizationFailedError)
        right = f"READ group {self._group}" if of_group else f"READ topic {self._topic}"
        failure = in_words(error, self._settings, right)
        if not self._admitted:
            raise failure from error
        self._shut_out = not isinstance(error, AuthorizationError)
        self._wait(failure)

    def _wait(self, failure: StreamError | OSError) -> None:
        self._again = time.monotonic() + self._outage.failed(failure)

    def _kept_out(self) -> bool:
        """Whether the broker has refused, and is to be left alone now."""
        if time.monotonic() < self._again:
            return True
        if self._shut_out:
            try:
                check_access(self._settings)
            except (AccessRefused, OSError) as error:
                self._wait(error)
                return True
            self._shut_out = False
            # The client never tries again where a password was refused.
            self._assignment.lose(self.partitions())
            self.close()
            self._join()
        return False

    def _answered(self) -> None:
        self._heard = time.monotonic()
        self._outage.worked()

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._subscription.assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._subscription.revoked(revoked)
