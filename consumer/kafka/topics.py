"""Topics and groups as a whole: create what is missing, read to the end, look at offsets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    InvalidConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    NotCoordinatorError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from consumer.kafka.client import (
    CHECK_MS,
    AccessRefused,
    Message,
    StreamError,
    in_words,
    make_client,
)
from consumer.kafka.publisher import REQUEST_BYTES
from consumer.kafka.reach import POLL_MS, admin_client, log_reader, to_the_end, until_it_answers
from consumer.settings import ConsumerSettings

LAG_SECONDS = 10.0  # at most, to find what is left
QUIET_POLLS = 2  # that bring nothing: nothing more is there to be read
PARTITIONS = 4  # of a topic that is created here
COORDINATOR_SECONDS = 15.0  # in which a new broker has made and read the topic of groups' offsets
NOT_READY = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)
T = TypeVar("T")


def wait_for_topics(
    settings: ConsumerSettings,
    stop: threading.Event,
    log: logging.Logger,
    topic: str = "READ",
    dead: str | None = "WRITE",
) -> None:
    """Wait for the broker, then create the topic and its dead-letter topic if they are missing.

    Args:
        topic: what the process does with the topic: READ or WRITE.
        dead: what it does with the dead-letter topic; None: nothing, so it is left alone.

    Raises:
        AccessRefused: the process may not do that, or not come in.
        StreamError: the broker refuses.
    """
    dead_options = {"num_partitions": 1, "configs": {"max.message.bytes": str(REQUEST_BYTES)}}

    def create() -> None:
        admin = make_client(KafkaAdminClient, settings)
        try:
            name = settings.kafka_topic
            if not _may(admin, settings, name, topic):
                _create(admin, settings, name, {"num_partitions": PARTITIONS}, log)
            if dead and not _may(admin, settings, settings.dead_letter_topic, dead):
                _create(admin, settings, settings.dead_letter_topic, dead_options, log)
        finally:
            admin.close()

    until_it_answers(create, settings, stop, log)


def _may(admin: KafkaAdminClient, settings: ConsumerSettings, topic: str, operation: str) -> bool:
    """Whether the topic is there.

    Raises:
        AccessRefused: this process may not do the operation, such as READ, with it.
        KafkaError: the broker cannot tell now.
    """
    (found,) = admin.describe_topics([topic])
    error = for_code(found["error_code"])
    if error is UnknownTopicOrPartitionError:
        return False
    allowed = found.get("authorized_operations")  # a broker may leave it out
    if error is NoError and allowed and operation not in allowed:
        error = TopicAuthorizationFailedError
    if error is TopicAuthorizationFailedError:
        raise in_words(error(), settings, f"{operation} topic {topic}")
    if error is not NoError:
        raise error(f"topic {topic}")
    return True


def _create(
    admin: KafkaAdminClient,
    settings: ConsumerSettings,
    topic: str,
    options: dict[str, Any],
    log: logging.Logger,
) -> None:
    """Create the topic, with the broker's own limits where the broker refuses what is asked for."""
    try:
        try:
            admin.create_topics({topic: options}, wait_for_metadata=True)
        except (InvalidConfigurationError, PolicyViolationError) as refused:
            if "configs" not in options:
                raise
            bare = {name: value for name, value in options.items() if name != "configs"}
            admin.create_topics({topic: bare}, wait_for_metadata=True)
            log.warning("Topic %s has no limits of its own: the broker refused %s (%s).",
                        topic, options["configs"], refused)  # fmt: skip
    except TopicAlreadyExistsError:
        return  # another process was quicker
    except AuthorizationError:
        raise AccessRefused(
            f"topic {topic} is missing on Kafka at {settings.kafka_bootstrap_servers}, and this "
            f"process may not create it: create it, or grant the right CREATE topic {topic}"
        ) from None
    except KafkaError as error:
        if error.retriable:
            raise
        raise StreamError(f"topic {topic} is missing and cannot be created: {error}") from error


def read_topic(
    settings: ConsumerSettings, topic: str, starts: Mapping[int, int] | None = None
) -> Iterator[Message]:
    """All messages of a topic up to its end as of now, each partition in order.

    Args:
        starts: partition -> offset to begin at; a partition that is not named is read whole.

    Raises:
        StreamError: the broker does not answer.
    """
    with admin_client(settings, f"DESCRIBE topic {topic}") as admin:
        if not _may(admin, settings, topic, "READ"):
            return
    with log_reader(settings) as reader:
        partitions = partitions_of(reader, topic)
        ends = reader.end_offsets(partitions, timeout_ms=CHECK_MS) if partitions else {}
        reader.assign(partitions)
        for tp in partitions:
            if starts and tp.partition in starts:
                reader.seek(tp, starts[tp.partition])
            else:
                reader.seek_to_beginning(tp)
        for messages in to_the_end(reader, partitions, ends):
            yield from messages


def group_lag(settings: ConsumerSettings, group: str) -> tuple[int, int | None]:
    """Lag of a group by its committed offsets, and the number of its members.

    The lag is counted as the consumer counts: from the first message that is left, past what a
    transaction or retention has put in between, to the high watermark, so that what waits behind an
    open transaction counts. The number is None where the broker's answer about the group is not
    understood, as is the embedded one's.

    Raises:
        StreamError: the broker does not answer, or has no such topic.
    """
    with admin_client(settings, f"DESCRIBE group {group}") as admin:
        if not _may(admin, settings, settings.kafka_topic, "READ"):
            raise StreamError(f"there is no topic {settings.kafka_topic}, which consumers create")
        members = _members(admin, group)
        with log_reader(settings) as reader:
            partitions = partitions_of(reader, settings.kafka_topic)
            done = _committed(admin, group, partitions)
            return _left(reader, partitions, done), members


def _left(reader: KafkaConsumer, partitions: list[TopicPartition], done: Mapping[int, int]) -> int:
    """Messages behind the offsets `done`."""
    if not partitions:
        return 0
    reader.assign(partitions)
    first = reader.beginning_offsets(partitions, timeout_ms=CHECK_MS)
    for tp in partitions:
        reader.seek(tp, max(done.get(tp.partition, 0), first[tp]))
    at: dict[TopicPartition, int] = {}  # where the first message is that is left
    quiet = 0
    until = time.monotonic() + LAG_SECONDS
    while len(at) < len(partitions) and quiet < QUIET_POLLS and time.monotonic() < until:
        polled = reader.poll(timeout_ms=POLL_MS)
        for tp, messages in polled.items():
            at.setdefault(tp, messages[0].offset)
            reader.pause(tp)
        unheard = any(reader.highwater(tp) is None for tp in partitions)
        quiet = 0 if polled or unheard else quiet + 1
    if unheard:
        raise KafkaTimeoutError(f"no answer about all partitions within {LAG_SECONDS:.0f} s")
    places = {tp: at.get(tp, reader.position(tp, timeout_ms=0) or 0) for tp in partitions}
    return sum(max(0, (reader.highwater(tp) or 0) - place) for tp, place in places.items())


def _members(admin: KafkaAdminClient, group: str) -> int | None:
    try:
        return _when_ready(lambda: len(admin.describe_groups([group])[group]["members"]))
    except ValueError:  # from the client's own decoding
        return None


def group_offsets(settings: ConsumerSettings, group: str) -> dict[int, int]:
    """Partition -> the offset that a group has committed to Kafka.

    Raises:
        StreamError: the broker does not answer.
    """
    with log_reader(settings) as reader:
        partitions = partitions_of(reader, settings.kafka_topic)
    with admin_client(settings, f"READ group {group}") as admin:  # as a member of it needs
        return _committed(admin, group, partitions)


def _committed(
    admin: KafkaAdminClient, group: str, partitions: list[TopicPartition]
) -> dict[int, int]:
    entries = _when_ready(lambda: admin.list_group_offsets({group: partitions})[group])
    return {
        tp.partition: int(entry.offset)
        for tp, entry in entries.items()
        if getattr(entry, "offset", -1) >= 0
    }


def _when_ready(ask: Callable[[], T]) -> T:
    """The broker's answer about a group, waited for while it is not ready for groups."""
    return Retrying(
        retry=retry_if_exception_type(NOT_READY),
        wait=wait_exponential(0.1, max=1.0),
        stop=stop_after_delay(COORDINATOR_SECONDS),
        reraise=True,
    )(ask)


def partitions_of(reader: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, none where it is missing."""
    return [TopicPartition(topic, p) for p in reader.partitions_for_topic(topic) or ()]
