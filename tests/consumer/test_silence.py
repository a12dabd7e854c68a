"""A broker that is away while a topic is read gives nothing and says nothing: that is no end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from consumer.kafka.client import StreamError
from consumer.kafka.offsets import read_end
from consumer.kafka.topics import group_lag, read_topic
from tests.ingesting import Topic
from tests.services import Broker, embedded_kafka


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr("consumer.kafka.reach.SILENT_SECONDS", 0.5)
    with embedded_kafka(tmp_path) as made:
        yield made


@pytest.fixture
def topic(broker: Broker, tmp_path: Path) -> Topic:
    made = Topic(broker.address, tmp_path)
    for _ in range(100):
        made.send(bytes(200_000))  # more than one poll brings
    made.publisher.flush()
    made.publisher.close()
    return made


def test_a_topic_that_is_read_while_the_broker_goes_away_ends_in_an_error(
    broker: Broker, topic: Topic
) -> None:
    messages = read_topic(topic.settings, topic.settings.kafka_topic)
    next(messages)
    broker.freeze()
    with pytest.raises(StreamError, match="Kafka at"):
        list(messages)


def end(topic: Topic) -> int:
    return read_end(topic.settings, TopicPartition(topic.settings.kafka_topic, 0), 0)


def lag(topic: Topic) -> int:
    return group_lag(topic.settings, topic.settings.kafka_group)[0]


@pytest.mark.parametrize("ask", [end, lag])
def test_a_broker_that_goes_away_before_the_first_answer_tells_no_number(
    broker: Broker,
    topic: Topic,
    ask: Callable[[Topic], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ask(topic) == 100
    seek = KafkaConsumer.seek

    def seek_and_lose(*given: Any) -> None:
        broker.freeze()
        seek(*given)

    monkeypatch.setattr("consumer.kafka.topics.LAG_SECONDS", 2.0)
    monkeypatch.setattr(KafkaConsumer, "seek", seek_and_lose)
    with pytest.raises(StreamError, match="Kafka at"):
        ask(topic)


def test_a_broker_that_answers_but_never_gives_what_is_left_is_not_waited_for_without_end(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.kafka.reach.GIVE_UP_SECONDS", 1.0)
    polls: list[Any] = []
    poll = KafkaConsumer.poll

    def poll_twice(*given: Any, **named: Any) -> Any:
        polls.append(given)
        return poll(*given, **named) if len(polls) < 3 else {}

    monkeypatch.setattr(KafkaConsumer, "poll", poll_twice)
    with pytest.raises(
        StreamError, match=f"no further message of topic {topic.settings.kafka_topic}"
    ):
        list(read_topic(topic.settings, topic.settings.kafka_topic))
