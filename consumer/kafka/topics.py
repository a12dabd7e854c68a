"""Topics and groups as a whole: create what is missing, read to the end, look at offsets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from consumer.kafka.client import (
    CHECK_MS,
    Message,
    StreamError,
    admin_client,
    connection,
    log_reader,
    until_it_answers,
)
from consumer.kafka.publisher import REQUEST_BYTES
from consumer.settings import ConsumerSettings

PARTITIONS = 4  # of a topic that is created here


def wait_for_topics(settings: ConsumerSettings, stop: threading.Event, log: logging.Logger) -> None:
    """Wait for the broker, then create the topic and its dead-letter topic if they are missing.

    Raises:
        StreamError: the broker refuses.
    """
    dead_config = {"max.message.bytes": str(REQUEST_BYTES)}

    def create() -> None:
        admin = KafkaAdminClient(**connection(settings), bootstrap_timeout_ms=CHECK_MS)
        try:
            _create(admin, settings.kafka_topic, {"num_partitions": PARTITIONS})
            dead = {"num_partitions": 1, "configs": dead_config}
            _create(admin, f"{settings.kafka_topic}.dead", dead)
        finally:
            admin.close()

    until_it_answers(create, settings, stop, log)


def _create(admin: KafkaAdminClient, topic: str, options: dict[str, Any]) -> None:
    if topic in admin.list_topics():
        return
    try:
        admin.create_topics({topic: options}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return  # another process was quicker
    except KafkaError as error:
        if error.retriable:
            raise
        raise StreamError(f"topic {topic} is missing and cannot be created: {error}") from error


def read_topic(settings: ConsumerSettings, topic: str) -> Iterator[Message]:
    """All messages of a topic up to its end as of now, each partition in order.

    Raises:
        StreamError: the broker does not answer.
    """
    with log_reader(settings) as reader:
        partitions = partitions_of(reader, topic)
        ends = reader.end_offsets(partitions, timeout_ms=CHECK_MS) if partitions else {}
        reader.assign(partitions)
        reader.seek_to_beginning(*partitions)
        quiet = False  # an end may be told too low, so a poll that brings nothing confirms it
        while not quiet or any((reader.position(tp) or 0) < end for tp, end in ends.items()):
            polled = reader.poll(timeout_ms=500)
            quiet = not polled
            for messages in polled.values():
                yield from messages


def group_lag(settings: ConsumerSettings, group: str) -> tuple[int, int | None]:
    """Lag of a group by its committed offsets, and the number of its members.

    The number is None where the broker's answer about the group is not understood, as is the
    embedded one's.

    Raises:
        StreamError: the broker does not answer.
    """
    with admin_client(settings) as admin, log_reader(settings) as reader:
        partitions = partitions_of(reader, settings.kafka_topic)
        ends = reader.end_offsets(partitions, timeout_ms=CHECK_MS)
        done = _committed(admin, group, partitions)
        members = _members(admin, group)
    return sum(max(0, end - done.get(tp.partition, 0)) for tp, end in ends.items()), members


def _members(admin: KafkaAdminClient, group: str) -> int | None:
    try:
        return len(admin.describe_groups([group])[group]["members"])
    except ValueError:  # from the client's own decoding
        return None


def group_offsets(settings: ConsumerSettings, group: str) -> dict[int, int]:
    """Partition -> the offset that a group has committed to Kafka.

    Raises:
        StreamError: the broker does not answer.
    """
    with admin_client(settings) as admin, log_reader(settings) as reader:
        return _committed(admin, group, partitions_of(reader, settings.kafka_topic))


def _committed(
    admin: KafkaAdminClient, group: str, partitions: list[TopicPartition]
) -> dict[int, int]:
    entries = admin.list_group_offsets({group: partitions})[group]
    return {
        tp.partition: int(entry.offset)
        for tp, entry in entries.items()
        if getattr(entry, "offset", -1) >= 0
    }


def partitions_of(reader: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, none where it is missing."""
    return [TopicPartition(topic, p) for p in reader.partitions_for_topic(topic) or ()]
