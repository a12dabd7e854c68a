"""What other clients send, and what nobody should: each becomes rows or a dead letter."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it says not what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from kafka import KafkaProducer

from consumer.edge.store import EdgeStore
from consumer.event import rules
from consumer.ingest.letters import Letter, Letters
from consumer.kafka import records
from consumer.kafka.identity import topic_id
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import group_offsets
from process.health import Health
from process.log import Figures
from process.running import Running
from serving import serve
from serving.settings import ServingSettings
from tests.ingesting import Topic, consuming
from tests.services import wait_for
from tests.threads import running

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture
def topic(kafka: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(kafka, tmp_path)
    yield made
    made.publisher.close()


@pytest.fixture
def apache_topic(apache: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(apache, tmp_path)
    yield made
    made.publisher.close()


def other_client(topic: Topic, **options: Any) -> Producer:
    """librdkafka's producer, which has nothing in common with the client used here."""
    servers = topic.settings.kafka_bootstrap_servers
    settings = {"bootstrap.servers": servers, "linger.ms": 50, "log_level": 0}
    return Producer(settings | options)


def configure(topic: Topic, name: str, value: str) -> None:
    """Set what the topic is configured with."""
    admin = AdminClient({"bootstrap.servers": topic.settings.kafka_bootstrap_servers})
    change = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    kind = ResourceType.TOPIC
    resource = ConfigResource(kind, topic.settings.kafka_topic, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result()


def event(item: str, more: str = "") -> str:
    return f'{{"user_id":"u","item_id":"{item}","more":"{more}"}}'


@contextmanager
def serving(topic: Topic, redis_url: str) -> Iterator[None]:
    """Serving, which has read all of the topic before the block begins.

    No consumer may have stored any of it: serving begins where the edge store ends.
    """
    store = EdgeStore.begin(topic.settings.edge_store, topic.settings.kafka_topic)
    store.begin_log(topic_id(topic.settings), None)  # as the consumer does
    settings = ServingSettings(
        **topic.settings.model_dump(exclude={"commit_events", "commit_seconds"}),
        model_store=str(Path(topic.settings.edge_store).parent / "models"),
        redis_url=redis_url,
        redis_prefix=topic.settings.kafka_topic,
        device="cpu",
    )

    def serving(stop: threading.Event) -> None:
        serve.run(settings, Running(stop, Figures("serving"), Health()))

    ends = topic.ends()
    with running(serving) as ended:

        def has_read_all() -> bool:
            answered = group_offsets(settings, f"{settings.kafka_group}-serving")
            return ended.done() or answered.items() >= ends.items()

        wait_for("serving to read all", has_read_all)
        yield


def take_all(topic: Topic, redis_url: str) -> list[Letter]:
    """Let first serving, then the consumer read all that was sent; the dead letters."""
    with serving(topic, redis_url), consuming(topic.settings):
        topic.wait_stored()
    return list(Letters(topic.settings).letters())


def test_messages_that_another_client_has_compressed_become_rows(
    topic: Topic, redis_url: str
) -> None:
    name = topic.settings.kafka_topic
    for codec in CODECS:
        producer = other_client(topic, **{"compression.type": codec})
        for n in range(500):
            producer.produce(name, event(f"{codec}-{n}", "x" * (n % 200)), "u", partition=0)
        assert producer.flush(30) == 0
    assert not take_all(topic, redis_url)
    assert topic.rows()["item_id"].to_pylist() == [
        f"{codec}-{n}" for codec in CODECS for n in range(500)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_a_topic_that_compresses_by_itself_is_read(
    apache_topic: Topic, redis_url: str, codec: str
) -> None:
    configure(apache_topic, "compression.type", "uncompressed" if codec == "none" else codec)
    for n in range(500):
        apache_topic.send(event(f"i{n}").encode(), partition=0)
    apache_topic.publisher.flush()
    assert not take_all(apache_topic, redis_url)
    assert apache_topic.rows()["item_id"].to_pylist() == [f"i{n}" for n in range(500)]


def test_a_header_that_is_null_or_no_text_is_kept_and_ends_nothing(
    topic: Topic, redis_url: str
) -> None:
    producer = other_client(topic)
    name = topic.settings.kafka_topic
    producer.produce(name, b"no event", b"k", 0, headers=[("empty", None), ("n", b"1")])
    assert producer.flush(30) == 0
    foreign = records.HeaderKey(b"caf\xe9")
    topic.send(b"no event", [(foreign, b"\xff"), ("n", b"2")], b"\xff\xfe")
    topic.send(event("good").encode(), [(foreign, b"")])
    first, second = take_all(topic, redis_url)
    assert first.headers == [("empty", b""), ("n", b"1")]  # null cannot be sent by the client
    assert second.headers == [("caf\\xe9", b"\xff"), ("n", b"2")]
    assert second.headers[0][0].encode() == b"caf\xe9"
    assert (second.key, second.value) == (b"\xff\xfe", b"no event")
    assert topic.rows()["item_id"].to_pylist() == ["good"]


def test_tombstones_and_empty_values_are_dead_letters_and_keys_may_be_null(
    topic: Topic, redis_url: str
) -> None:
    producer = other_client(topic)
    name = topic.settings.kafka_topic
    producer.produce(name, None, b"k", 0)
    producer.produce(name, b"", None, 0)
    producer.produce(name, event("good"), None, 0)
    assert producer.flush(30) == 0
    assert ["empty" in letter.reason for letter in take_all(topic, redis_url)] == [True, True]
    assert topic.rows()["item_id"].to_pylist() == ["good"]


def test_an_event_without_a_time_in_range_happened_when_it_was_read(
    apache_topic: Topic, redis_url: str
) -> None:
    settings, times = apache_topic.settings, (-1, 0, 1_000, 2**62)
    configure(apache_topic, "message.timestamp.after.max.ms", str(2**63 - 1))
    begun = time.time()
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    for sent in times:
        producer.send(
            settings.kafka_topic, event(f"i{sent}").encode(), partition=0, timestamp_ms=sent
        )
        producer.flush()  # a batch of its own
    producer.close()
    assert not take_all(apache_topic, redis_url)
    stored = apache_topic.rows()
    assert stored["item_id"].to_pylist() == [f"i{sent}" for sent in times]
    for at in stored["timestamp"].to_pylist():
        assert begun - 1 < at.timestamp() < time.time() + 1


def test_a_damaged_batch_is_one_dead_letter_that_names_its_offsets(
    apache_topic: Topic, redis_url: str, apache_folder: Path
) -> None:
    name = apache_topic.settings.kafka_topic
    producer = other_client(apache_topic, **{"linger.ms": 1_000})  # each flush is one batch
    for part in ("first", "damaged", "last"):
        for n in range(3):
            producer.produce(name, event(f"{part}-{n}"), "u", partition=0)
        assert producer.flush(30) == 0
    [log] = apache_folder.glob(f"logs/{name}-0/*.log")
    with log.open("r+b") as file:
        file.seek(file.read().index(b"damaged-1"))
        file.write(b"dam4ged-1")
    [letter] = take_all(apache_topic, redis_url)
    assert "cannot read offsets 3 to 5 of the partition" in letter.reason
    assert letter.source == f"{name}/0/5"
    assert not letter.whole
    assert apache_topic.rows()["item_id"].to_pylist() == [
        f"{part}-{n}" for part in ("first", "last") for n in range(3)
    ]


def test_a_batch_whose_codec_is_missing_is_one_dead_letter_that_names_it(
    topic: Topic, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = other_client(topic, **{"compression.type": "zstd"})
    for n in range(9):
        producer.produce(topic.settings.kafka_topic, event(f"i{n}"), "u", partition=0)
    assert producer.flush(30) == 0
    topic.send(event("good").encode())
    topic.publisher.flush()
    monkeypatch.setattr("kafka.codec.has_zstd", lambda: False)
    found = take_all(topic, redis_url)
    assert found
    assert all("Libraries for zstd compression codec not found" in each.reason for each in found)
    assert topic.rows()["item_id"].to_pylist() == ["good"]


def test_an_error_that_nobody_foresaw_costs_one_message_and_is_counted(
    topic: Topic,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    known = rules.check

    def check(given: Any) -> rules.Checked:
        if "cursed" in given["item_id"].to_pylist():
            raise ZeroDivisionError("a surprise\nof a decoder")
        return known(given)

    monkeypatch.setattr(rules, "check", check)
    for item in ("first", "cursed", "last"):
        topic.send(event(item).encode())

    def counted() -> bool:
        lines = [
            line.getMessage() for line in caplog.records if "unforeseen=1" in line.getMessage()
        ]
        return {line.split()[0] for line in lines} == {"ingested", "served"}

    with serving(topic, redis_url), consuming(topic.settings):
        topic.wait_stored()
        wait_for("the figures", counted)
    [letter] = Letters(topic.settings).letters()
    assert letter.reason == "ZeroDivisionError: a surprise\\nof a decoder"
    assert letter.value == event("cursed").encode()
    assert topic.rows()["item_id"].to_pylist() == ["first", "last"]
    assert caplog.text.count("is skipped (ZeroDivisionError: a surprise\\nof a decoder)") == 1


def test_a_dead_letter_that_the_client_refuses_is_written_without_what_it_refuses(
    topic: Topic, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (b"ordinary", b"refused headers", b"refused value"):
        topic.send(value, [("own", b"header")])
    topic.publisher.flush()
    known = Publisher.send

    def send(self: Publisher, name: str, value: bytes | None, *rest: Any, **named: Any) -> Any:
        names = [key for key, _ in rest[1]]
        if value == b"refused value" or (value == b"refused headers" and "own" in names):
            raise TypeError("what the client refuses, nobody knows")
        return known(self, name, value, *rest, **named)

    monkeypatch.setattr(Publisher, "send", send)
    found = {letter.source.split("/")[2]: letter for letter in take_all(topic, redis_url)}
    kept = {offset: (each.value, each.headers, each.whole) for offset, each in found.items()}
    assert kept == {
        "0": (b"ordinary", [("own", b"header")], True),
        "1": (b"refused headers", [], False),
        "2": (b"", [], False),
    }
    assert all("not JSON" in each.reason for each in found.values())
