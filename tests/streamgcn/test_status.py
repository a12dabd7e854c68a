"""What `streamgcn status` says."""

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CoordinatorNotAvailableError

from consumer.event.json import encode
from consumer.kafka.client import StreamError
from consumer.kafka.topics import group_lag
from tests.ingesting import Topic, consuming, likes
from tests.services import PATIENCE, wait_for
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.lease import EXPIRES, LEASE, Lease
from trainer.lifecycle.running_training import TRAINING, RunningTraining, doing


def transaction(topic: Topic, name: str) -> Producer:
    settings = topic.settings
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": name}
    )
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    return producer


def produce(producer: Producer, topic: Topic, count: int) -> None:
    for event in likes("u", [f"i{n}" for n in range(count)]):
        producer.produce(topic.settings.kafka_topic, encode(event), b"u", partition=0)
    producer.flush(PATIENCE)


def lag(topic: Topic) -> int:
    return group_lag(topic.settings, topic.settings.kafka_group)[0]


def test_the_lag_is_0_after_transactions_and_counts_what_waits_behind_an_open_one(
    apache: str, tmp_path: Path
) -> None:
    topic = Topic(apache, tmp_path)
    for number in range(3):
        producer = transaction(topic, f"{topic.settings.kafka_topic}-{number}")
        produce(producer, topic, 5)
        producer.commit_transaction(PATIENCE)
    with consuming(topic.settings):
        topic.wait_stored()
        wait_for("that the group has told Kafka", lambda: lag(topic) == 0)
        open_one = transaction(topic, f"{topic.settings.kafka_topic}-open")
        produce(open_one, topic, 1)
        topic.publish(*likes("v", [f"i{n}" for n in range(100)]))
        wait_for("101 that wait", lambda: lag(topic) == 101)
        open_one.commit_transaction(PATIENCE)
        wait_for("none that waits", lambda: lag(topic) == 0)
    topic.publisher.close()


def test_a_topic_that_is_not_there_is_said_and_is_no_lag_of_0(
    embedded: str, tmp_path: Path
) -> None:
    topic = Topic(embedded, tmp_path)
    topic.publisher.close()
    missing = topic.settings.model_copy(update={"kafka_topic": "misspelt"})
    with pytest.raises(StreamError, match="there is no topic misspelt"):
        group_lag(missing, missing.kafka_group)


@pytest.mark.parametrize("asked", ["describe_groups", "list_group_offsets"])
def test_a_broker_that_is_not_ready_for_consumer_groups_yet_is_waited_for(
    apache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    topic = Topic(apache, tmp_path)
    topic.publish(*likes("u", ["i"]))
    topic.publisher.close()
    answer, refusals = getattr(KafkaAdminClient, asked), [CoordinatorNotAvailableError()] * 2

    def ask(admin: KafkaAdminClient, given: object) -> object:
        if refusals:
            raise refusals.pop()
        return answer(admin, given)

    monkeypatch.setattr(KafkaAdminClient, asked, ask)
    assert lag(topic) == 1
    assert not refusals


def test_messages_that_retention_has_deleted_are_no_lag(apache: str, tmp_path: Path) -> None:
    topic = Topic(apache, tmp_path)
    topic.publish(*likes("u", [f"i{n}" for n in range(100)]))
    assert lag(topic) == 100
    place = TopicPartition(topic.settings.kafka_topic, 0)
    reader = KafkaConsumer(
        bootstrap_servers=apache, group_id=topic.settings.kafka_group, enable_auto_commit=False
    )
    reader.assign([place])
    reader.commit({place: OffsetAndMetadata(10, "", -1)})
    reader.close()
    assert lag(topic) == 90
    admin = KafkaAdminClient(bootstrap_servers=apache)
    admin.delete_records({place: 95})
    assert lag(topic) == 5
    admin.delete_records({place: 100})
    assert lag(topic) == 0
    admin.close()
    topic.publisher.close()


def test_the_lag_of_the_embedded_broker_counts_every_message(embedded: str, tmp_path: Path) -> None:
    topic = Topic(embedded, tmp_path)
    topic.publish(*likes("u", [f"i{n}" for n in range(100)]))
    assert lag(topic) == 100
    with consuming(topic.settings):
        topic.wait_stored()
        wait_for("that nothing is left", lambda: lag(topic) == 0)
    topic.publisher.close()


def test_status_tells_of_a_training_that_runs_and_of_a_trainer_that_was_killed(
    tmp_path: Path,
) -> None:
    models = Folder(tmp_path)
    assert doing(models) == "not running"
    lease, current = Lease(models), RunningTraining(models)
    wait_for("the lease", lease.take)
    assert doing(models).endswith("waiting for new edges")
    with current.of(edges=7):
        assert "training on 7 edges since 20" in doing(models)
        assert doing(models).endswith("beginning")
        current.note("choosing weights", 3, 30)
        current._write()
        assert doing(models).endswith("choosing weights, step 3 of 30")
        past = time.time() - 2 * EXPIRES
        os.utime(tmp_path / LEASE, (past, past))
        assert doing(models) == "not running"
    assert not (tmp_path / TRAINING).exists()
    lease.release()
    assert doing(models) == "not running"
