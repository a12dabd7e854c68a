"""Rejected messages put back: in their place, and without users who were forgotten meanwhile."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from consumer.event import arrow
from consumer.event.json import Event, encode
from consumer.ingest.letters import Letters
from consumer.ingest.reinject import Done, reinject
from consumer.kafka.client import Headers, StreamError
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import read_topic
from streamgcn import forget
from tests.ingesting import Topic, consuming

LONG_AGO = 1_700_000_000_000


@pytest.fixture
def topic(kafka: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(kafka, tmp_path)
    yield made
    made.publisher.close()


def too_much(*users: str) -> bytes:
    """A message that is rejected for an interaction out of range."""
    events = [{"user_id": user, "item_id": f"i-{user}", "interaction": 1e13} for user in users]
    return json.dumps(events if len(events) > 1 else events[0]).encode()


def bad_rows(*users: str) -> bytes:
    return arrow.encode(
        pa.table(
            {"user_id": users, "item_id": ["i"] * len(users), "interaction": [1e13] * len(users)}
        )
    )


def put_back(topic: Topic, before: int) -> list[tuple[bytes | None, Headers]]:
    """Values and headers of the messages behind the first `before` in partition 0."""
    found = [m for m in read_topic(topic.settings, topic.settings.kafka_topic) if not m.partition]
    return [(message.value, message.headers) for message in found[before:]]


def test_a_rejected_message_of_a_user_who_was_forgotten_meanwhile_is_not_put_back(
    topic: Topic,
) -> None:
    sent: list[tuple[bytes, Headers, bytes]] = [
        (too_much("gone"), [], b"gone"),
        (too_much("gone"), [], b"another key"),
        (b'{"user_id":"gone","item_id":"i","interaction":NaN}', [], b"k"),
        (too_much("stays"), [], b"stays"),
        (too_much("gone", "stays", "gone"), [], b"k"),
        (bad_rows("gone", "stays"), arrow.HEADERS, b"k"),
        (b"neither JSON nor Arrow: gone", [], b"k"),
    ]
    with consuming(topic.settings):
        for value, headers, key in sent:
            topic.send(value, headers, key)
        topic.publish(*[Event(user, "i", 1.0, LONG_AGO, "view") for user in ("gone", "stays")])
        topic.wait_stored()
        forget.publish(topic.settings, "gone")
        topic.send(too_much("gone"), key=b"gone")  # the user came again
        topic.wait_stored()
    before = len(put_back(topic, 0))
    assert list(reinject(topic.settings))[-1] == Done(put_back=4, of_forgotten=4)
    values = put_back(topic, before)
    assert [json.loads(value or b"") for value, headers in values if not headers] == [
        json.loads(too_much("stays")),
        [json.loads(too_much("stays"))],
        json.loads(too_much("gone")),
    ]
    (bulk,) = [value for value, headers in values if headers]
    assert arrow.read(bulk or b"")["user_id"].to_pylist() == ["stays"]
    assert list(reinject(topic.settings))[-1].put_back == 0


def test_a_forget_that_a_client_sends_keeps_letters_back_and_so_does_one_read_before_its_letter(
    topic: Topic,
) -> None:
    """The consumer marks each forget it reads; the mark counts by the place in the topic."""
    topic.send(too_much("sent"), key=b"sent")
    topic.send(encode(Event("sent", "", 1.0, LONG_AGO, "forget")), key=b"sent")
    topic.send(too_much("late"), key=b"late")
    topic.publisher.flush()
    forget.publish(topic.settings, "late")  # its mark is there before the letter
    with consuming(topic.settings):
        topic.wait_stored()
    assert list(reinject(topic.settings))[-1] == Done(put_back=0, of_forgotten=2)
    assert Letters(topic.settings).holding("late") == 1
    assert Letters(topic.settings).holding("sent") == 1
    assert Letters(topic.settings).holding("else") == 0


def test_a_forget_that_a_client_of_another_partitioner_sends_keeps_letters_of_all_partitions_back(
    topic: Topic,
) -> None:
    with consuming(topic.settings):
        topic.send(too_much("sent"), key=b"sent", partition=2)
        topic.wait_stored()
        topic.send(encode(Event("sent", "", 1.0, LONG_AGO, "forget")), key=b"sent", partition=1)
        topic.wait_stored()
        topic.send(too_much("sent"), key=b"sent", partition=2)  # after the user has come again
        topic.wait_stored()
    assert list(reinject(topic.settings))[-1] == Done(put_back=1, of_forgotten=1)


def test_a_re_injection_that_has_begun_ends_when_a_user_is_forgotten(
    apache: str, tmp_path: Path
) -> None:
    topic = Topic(apache, tmp_path)
    with consuming(topic.settings):
        for n in range(600):
            topic.send(too_much(f"u{n}"), key=b"u%d" % n)
        topic.wait_stored()
    steps = reinject(topic.settings)
    assert next(steps) == Done(put_back=500)
    forget.publish(topic.settings, "u599")
    with pytest.raises(StreamError, match="dead-letters re-inject or forget"):
        next(steps)
    assert list(reinject(topic.settings))[-1] == Done(put_back=99, of_forgotten=1)


def test_letters_of_another_program_with_times_that_are_none_are_put_back_as_all_others(
    topic: Topic,
) -> None:
    times = ["²".encode(), b"9" * 5000, b"9" * 18, b"-1", b"", b"1e3"]
    for number, time in enumerate(times):
        source = f"{topic.settings.kafka_topic}/0/{number}".encode()
        headers = [("error", b"e"), ("source", source), ("timestamp", time)]
        topic.publisher.send(topic.settings.dead_letter_topic, b"%d" % number, None, headers)
    topic.publisher.flush()
    assert list(reinject(topic.settings))[-1] == Done(put_back=len(times))
    found = read_topic(topic.settings, topic.settings.kafka_topic)
    assert sorted(message.value or b"" for message in found) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_message_that_is_put_back_has_the_partition_and_the_time_of_its_source(
    topic: Topic,
) -> None:
    name = topic.settings.kafka_topic
    users = [f"u{n}" for n in range(40)]
    publisher = Publisher(topic.settings)
    with consuming(topic.settings):
        for n, user in enumerate(users):
            at = LONG_AGO + n
            publisher.send(name, too_much(user), b"k", [], n % 4, at)
            table = pa.table({"user_id": [user, user], "item_id": ["i", ""]})
            publisher.send(name, arrow.encode(table), None, arrow.HEADERS, n % 4, at)
        publisher.flush()
        topic.wait_stored()
    list(reinject(topic.settings))
    publisher.close()
    found = [(m.partition, m.timestamp) for m in read_topic(topic.settings, name)]
    assert Counter(found) == Counter({(n % 4, LONG_AGO + n): 4 for n in range(40)})
