"""The Kafka side of the consumer and of serving; the only file that imports the Kafka client.

A Stream starts each partition where its owner says, never at Kafka's committed offset; that one
is written for lag tools alone. An unreachable broker is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.errors import KafkaError, OffsetOutOfRangeError, TopicAlreadyExistsError

from consumer.errors import StreamGCNError
from consumer.settings import ConsumerSettings

SESSION_MS = 6_000  # a dead member's partitions move on after this long
POLL_RECORDS = 10_000
CHECK_EVERY = 5.0  # seconds of silence after which the broker is asked whether it is there
CHECK_MS = 3_000
SHORT_SECONDS = 10.0  # a new leader may for a moment tell an end behind what was given out
PARTITIONS_SECONDS = 30.0  # a created topic is known to every broker within this
METADATA_MS = 5_000  # a topic or partition created since is noticed after this long
PARTITIONS = 4  # of a topic that is created here
Headers = Sequence[tuple[str, bytes]]


class StreamError(StreamGCNError):
    """Kafka refuses or does not answer; the text says what to do."""


class TopicShorter(StreamError):
    """The topic ends before the offset to start at: it was created anew."""


class Message(NamedTuple):
    """One Kafka message; `timestamp` in epoch milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def connection(settings: ConsumerSettings) -> dict[str, Any]:
    """The client's arguments to reach the broker."""
    password = settings.kafka_sasl_password
    given: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "ssl_cafile": settings.kafka_ssl_cafile and str(settings.kafka_ssl_cafile),
        "ssl_certfile": settings.kafka_ssl_certfile and str(settings.kafka_ssl_certfile),
        "ssl_keyfile": settings.kafka_ssl_keyfile and str(settings.kafka_ssl_keyfile),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        given |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password and password.get_secret_value(),
        }
    return {name: value for name, value in given.items() if value is not None}


def wait_for_topics(settings: ConsumerSettings, stop: threading.Event, log: logging.Logger) -> None:
    """Wait for the broker, then create the topic and its dead-letter topic if they are missing."""
    address = settings.kafka_bootstrap_servers
    since = 0.0
    while not stop.is_set():
        try:
            admin = KafkaAdminClient(**connection(settings), bootstrap_timeout_ms=CHECK_MS)
        except (KafkaError, OSError) as error:
            if not since:
                since = time.time()
                log.warning("Kafka at %s is unreachable (%s); waiting for it.", address, error)
            stop.wait(0.2)
            continue
        try:
            _create(admin, settings.kafka_topic, PARTITIONS)
            _create(admin, f"{settings.kafka_topic}.dead", 1)
        finally:
            admin.close()
        if since:
            log.info("Kafka at %s is back after %.0f s.", address, time.time() - since)
        return


def _create(admin: KafkaAdminClient, topic: str, partitions: int) -> None:
    if topic in admin.list_topics():
        return
    try:
        admin.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return  # another process was quicker
    except KafkaError as error:
        raise StreamError(f"topic {topic} is missing and cannot be created: {error}") from error


class Stream:
    """The partitions of the topic that this member of `group` has at the moment."""

    def __init__(
        self,
        settings: ConsumerSettings,
        group: str,
        log: logging.Logger,
        start: Callable[[int], int | None],
        on_revoked: Callable[[], None],
    ) -> None:
        """Join the group.

        Args:
            start: partition -> offset to begin at, None for the earliest.
            on_revoked: called before partitions are given up.
        """
        self._topic = settings.kafka_topic
        self._address = settings.kafka_bootstrap_servers
        self._log = log
        self._start = start
        self._on_revoked = on_revoked
        self._heard = time.monotonic()
        self._down_since = 0.0
        self._failure: Exception | None = None
        self._starts: dict[TopicPartition, int] = {}  # until the topic is seen to reach there
        self._assigned_at = 0.0
        self._consumer = KafkaConsumer(
            **connection(settings),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # every start is given; an offset that is not there is told
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 3,
            max_poll_records=POLL_RECORDS,
            fetch_max_wait_ms=100,
            metadata_max_age_ms=METADATA_MS,
        )
        self._await_partitions()
        self._consumer.subscribe([self._topic], listener=_Listener(self))

    def poll(self, seconds: float) -> list[Message]:
        """Messages that arrived, waiting at most `seconds` for the first.

        Raises:
            TopicShorter: a partition ends before the offset it should start at.
        """
        try:
            polled = self._consumer.poll(timeout_ms=int(seconds * 1000))
        except OffsetOutOfRangeError as error:
            self._beyond(error.args[0])
            return []
        if self._failure:
            raise self._failure
        self._verify()
        if polled:
            self._answered()
        elif time.monotonic() - self._heard > CHECK_EVERY:
            self._check()
        return [
            Message(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
            for records in polled.values()
            for r in records
        ]

    def heartbeat(self) -> None:
        """Stay a member of the group without taking messages."""
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        self._consumer.poll(timeout_ms=0)
        self._consumer.resume(*self._consumer.paused())
        if self._failure:
            raise self._failure

    def restart(self) -> None:
        """Ask again where each assigned partition starts, and go there."""
        for tp in self._consumer.assignment():
            self._seek(tp)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka, for lag tools, how far the group is; not waited for."""
        self._consumer.commit_async(
            {self._tp(p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()},
            callback=lambda *_: None,  # a lost one is made good by the next
        )

    def lag(self) -> int:
        """Messages of the assigned partitions that were not polled yet."""
        return sum(
            max(
                0,
                (self._consumer.highwater(tp) or 0)
                - (self._consumer.position(tp, timeout_ms=0) or 0),
            )
            for tp in self._consumer.assignment()
            if self._consumer.highwater(tp) is not None
        )

    def partitions(self) -> set[int]:
        """The partitions assigned now."""
        return {tp.partition for tp in self._consumer.assignment()}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assigned(self, partitions: set[TopicPartition]) -> None:
        """Seek each new partition; a failure is kept for `poll`, the client would swallow it."""
        if not partitions:
            return
        self._log.info("Assigned partitions %s.", sorted(tp.partition for tp in partitions))
        try:
            for tp in partitions:
                self._seek(tp)
        except Exception as error:
            self._failure = error

    def revoked(self, partitions: set[TopicPartition]) -> None:
        """Let the owner finish what it has of these."""
        if not partitions:
            return
        self._log.info("Revoked partitions %s.", sorted(tp.partition for tp in partitions))
        try:
            self._on_revoked()
        except Exception as error:
            self._failure = error

    def _await_partitions(self) -> None:
        """Know the topic's partitions before joining.

        A member that joins without is given none, and the client (3.0.12) can then hang in the
        rebalance that follows.
        """
        deadline = time.monotonic() + PARTITIONS_SECONDS
        while not self._consumer.partitions_for_topic(self._topic):
            if time.monotonic() > deadline:
                raise StreamError(f"topic {self._topic} is not there; is it being deleted?")
            time.sleep(0.1)

    def _seek(self, tp: TopicPartition) -> None:
        offset = self._start(tp.partition)
        if offset is None:
            self._consumer.seek_to_beginning(tp)
            return
        self._consumer.seek(tp, offset)
        self._starts[tp] = offset
        self._assigned_at = time.monotonic()

    def _verify(self) -> None:
        """Forget the starts that the topic reaches; the broker tells its end with each answer."""
        for tp, start in list(self._starts.items()):
            end = self._consumer.highwater(tp) if tp in self._consumer.assignment() else start
            if end is not None and end >= start:
                del self._starts[tp]
            elif end is not None and time.monotonic() - self._assigned_at > SHORT_SECONDS:
                raise self._shorter(tp, start)

    def _beyond(self, positions: Mapping[TopicPartition, int]) -> None:
        """The broker has no such offsets: go on where its retention has left off, else give up."""
        firsts = self._consumer.beginning_offsets(list(positions))
        for tp, position in positions.items():
            if position > firsts[tp]:
                raise self._shorter(tp, position)
            self._log.error(
                "Kafka's retention has deleted the offsets %d to %d of partition %d unread; going "
                "on after them. Lengthen the topic's retention.ms, or let the consumer run always.",
                position,
                firsts[tp] - 1,
                tp.partition,
            )
            self._consumer.seek(tp, firsts[tp])

    def _shorter(self, tp: TopicPartition, start: int) -> TopicShorter:
        return TopicShorter(
            f"partition {tp.partition} of topic {self._topic} ends before offset {start}, up to "
            "which the edge store holds it: the topic was created anew. Point EDGE_STORE at a new "
            "place, or KAFKA_TOPIC at the topic that it was filled from"
        )

    def _check(self) -> None:
        partitions = list(self._consumer.assignment()) or [self._tp(0)]
        try:
            self._consumer.end_offsets(partitions, timeout_ms=CHECK_MS)
        except KafkaError as error:
            self._heard = time.monotonic()
            if not self._down_since:
                self._down_since = time.time()
                self._log.warning("Kafka at %s is unreachable (%s); waiting.", self._address, error)
            return
        self._answered()

    def _answered(self) -> None:
        self._heard = time.monotonic()
        if self._down_since:
            away = time.time() - self._down_since
            self._log.info("Kafka at %s is back after %.0f s.", self._address, away)
            self._down_since = 0.0

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._stream.assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._stream.revoked(revoked)


class Publisher:
    """Sends messages; acknowledged by all in-sync replicas, in order, without doubles by retry."""

    def __init__(self, settings: ConsumerSettings) -> None:
        """Connect.

        Raises:
            StreamError: the broker does not answer.
        """
        try:
            self._producer = KafkaProducer(
                **connection(settings), acks="all", linger_ms=20, batch_size=256 * 1024
            )
        except KafkaError as error:
            raise StreamError(
                f"Kafka at {settings.kafka_bootstrap_servers} does not answer ({error}); "
                "start it or set KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        self._failure: BaseException | None = None

    def send(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()
    ) -> None:
        """Queue one message.

        Raises:
            StreamError: this or an earlier message could not be delivered.
        """
        try:
            future = self._producer.send(topic, value=value, key=key, headers=list(headers))
        except KafkaError as error:
            raise StreamError(f"cannot publish to {topic}: {error}") from error
        future.add_errback(self._failed)

    def flush(self) -> None:
        """Wait until every message is acknowledged.

        Raises:
            StreamError: one could not be delivered.
        """
        try:
            self._producer.flush()
        except KafkaError as error:
            self._failure = error
        if self._failure:
            failure, self._failure = self._failure, None
            raise StreamError(f"a message was not delivered: {failure}")

    def close(self) -> None:
        """Drop the connection; call `flush` before, if the messages matter."""
        self._producer.close(timeout=5)

    def _failed(self, error: BaseException) -> None:
        self._failure = error


def group_lag(settings: ConsumerSettings, group: str) -> tuple[int, int | None]:
    """Lag of a group by its committed offsets, and the number of its members.

    The number is None where the broker's answer about the group is not understood, as is the
    embedded one's.

    Raises:
        StreamError: the broker does not answer.
    """
    topic = settings.kafka_topic
    try:
        admin = KafkaAdminClient(**connection(settings), bootstrap_timeout_ms=CHECK_MS)
        consumer = KafkaConsumer(**connection(settings), bootstrap_timeout_ms=CHECK_MS)
        try:
            partitions = [
                TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()
            ]
            ends = consumer.end_offsets(partitions, timeout_ms=CHECK_MS)
            committed = admin.list_group_offsets({group: partitions})[group]
            members = _members(admin, group)
        finally:
            admin.close()
            consumer.close(autocommit=False)
    except (KafkaError, OSError) as error:
        raise StreamError(f"Kafka at {settings.kafka_bootstrap_servers}: {error}") from error
    done = {tp: entry.offset for tp, entry in committed.items() if hasattr(entry, "offset")}
    return sum(max(0, end - max(0, done.get(tp, 0))) for tp, end in ends.items()), members


def _members(admin: KafkaAdminClient, group: str) -> int | None:
    try:
        return len(admin.describe_groups([group])[group]["members"])
    except ValueError:  # from the client's own decoding
        return None
