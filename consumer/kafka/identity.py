"""Which log a topic's name stands for: Kafka gives a topic that is created anew another id."""

from __future__ import annotations

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError

from consumer.kafka.client import CHECK_MS
from consumer.kafka.reach import log_reader
from consumer.settings import ConsumerSettings


def known_id(client: KafkaConsumer, topic: str) -> str | None:
    """The id of a topic as the client last heard of it.

    None where the topic is missing, or where the broker gives topics no id (Kafka before 2.8).
    """
    found = client._cluster.topic_id(topic)
    return str(found) if found and found.int else None


def ask(client: KafkaConsumer) -> None:
    """Hear from the broker what its topics are now.

    Raises:
        KafkaError: the broker does not answer.
    """
    heard = client._cluster.request_update()
    client._net.run(client._manager.wait_for, heard, CHECK_MS)
    if not heard.is_done:
        raise KafkaTimeoutError(f"no metadata within {CHECK_MS} ms")


def topic_id(settings: ConsumerSettings) -> str | None:
    """The id of the topic of the events, None as in `known_id`.

    Raises:
        StreamError: the broker does not answer.
    """
    with log_reader(settings) as reader:
        reader.partitions_for_topic(settings.kafka_topic)
        return known_id(reader, settings.kafka_topic)
