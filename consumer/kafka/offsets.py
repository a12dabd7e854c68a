"""Where partitions begin and end and how far a group is, as the broker tells it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from consumer.kafka.client import CHECK_MS, TopicShorter, in_words
from consumer.kafka.reach import log_reader, to_the_end
from consumer.settings import ConsumerSettings


def begin_at(
    tp: TopicPartition, start: int | None, first: int, end: int, log: logging.Logger
) -> int:
    """The offset to read a partition from, which holds the offsets from `first` up to `end`.

    Args:
        start: where the owner wants to begin, None for the earliest.

    Raises:
        TopicShorter: the partition ends before the start.
    """
    if start is None:
        return first
    if start > end:
        raise TopicShorter(
            f"partition {tp.partition} of topic {tp.topic} ends before offset {start}, up to which "
            "the edge store holds it"
        )
    if start < first:
        log.error(
            "Kafka's retention has deleted the offsets %d to %d of partition %d unread; going on "
            "after them. Lengthen the topic's retention.ms, or let the consumer run always.",
            start, first - 1, tp.partition,
        )  # fmt: skip
    return max(start, first)


def bounds(
    client: KafkaConsumer, settings: ConsumerSettings, tp: TopicPartition, start: int
) -> tuple[int, int]:
    """The first offset of a partition and its end; the end for certain if it is before `start`.

    Raises:
        KafkaError, StreamError: the broker does not answer.
    """
    first = client.beginning_offsets([tp], timeout_ms=CHECK_MS)[tp]
    end = client.end_offsets([tp], timeout_ms=CHECK_MS)[tp]
    return first, end if end >= start else max(end, read_end(settings, tp, end))


def first(client: KafkaConsumer, settings: ConsumerSettings, partition: int) -> int:
    """The first offset of a partition.

    Raises:
        StreamError: the broker does not answer.
    """
    tp = TopicPartition(settings.kafka_topic, partition)
    try:
        return int(client.beginning_offsets([tp], timeout_ms=CHECK_MS)[tp])
    except KafkaError as error:
        raise in_words(error, settings, f"READ topic {settings.kafka_topic}") from error


def ends(
    client: KafkaConsumer, settings: ConsumerSettings, offsets: Mapping[int, int]
) -> dict[int, int]:
    """Where the topic's partitions end: partition -> offset; those of `offsets` for certain.

    Raises:
        StreamError: the broker does not answer.
    """
    topic = settings.kafka_topic
    partitions = [TopicPartition(topic, p) for p in client.partitions_for_topic(topic) or ()]
    try:
        found = client.end_offsets(partitions, timeout_ms=CHECK_MS) if partitions else {}
    except KafkaError as error:
        raise in_words(error, settings, f"READ topic {topic}") from error
    return {
        tp.partition: read_end(settings, tp, end) if end < offsets.get(tp.partition, 0) else end
        for tp, end in found.items()
    }


def read_end(settings: ConsumerSettings, tp: TopicPartition, end: int) -> int:
    """Where the partition really ends; the embedded broker counts without its last batch.

    Raises:
        KafkaError, StreamError: the broker does not answer.
    """
    with log_reader(settings) as reader:
        reader.assign([tp])
        reader.seek(tp, end)
        for _ in to_the_end(reader, [tp], {}):
            pass
        return int(reader.position(tp))


def committed(
    client: KafkaConsumer,
    settings: ConsumerSettings,
    group: str,
    partition: int,
    topic_id: str | None,
) -> int | None:
    """The offset that the group has committed in the topic of this id, None if there is none.

    Raises:
        StreamError: the broker does not answer.
    """
    tp = TopicPartition(settings.kafka_topic, partition)
    try:
        found = client.committed(tp, metadata=True, timeout_ms=CHECK_MS)
    except KafkaError as error:
        raise in_words(error, settings, f"READ group {group}") from error
    of_this_log = found and found.metadata in (None, "", topic_id)
    return int(found.offset) if of_this_log else None


def lags(client: KafkaConsumer, topic: str, partitions: Collection[int]) -> dict[int, int]:
    """Messages that the client has not polled yet: partition -> number, of its own partitions.

    Raises:
        KafkaError: the broker does not answer.
    """
    own = [TopicPartition(topic, p) for p in partitions]
    own = [tp for tp in own if tp in client.assignment()]
    found = client.end_offsets(own, timeout_ms=CHECK_MS) if own else {}
    left = {}
    for tp, asked in found.items():
        end = max(asked, client.highwater(tp) or 0)  # the latter came with the last messages
        left[tp.partition] = max(0, end - (client.position(tp, timeout_ms=0) or 0))
    return left
