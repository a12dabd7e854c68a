"""Rejected messages put back: in their place, and without users who were forgotten meanwhile."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient

from consumer.event import arrow
from consumer.event.json import Event, encode
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.decode import Rejected
from consumer.ingest.letters import Forget, Letters
from consumer.ingest.reinject import Done, reinject
from consumer.kafka.client import Headers, Message, StreamError
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import read_topic
from consumer.settings import ConsumerSettings
from streamgcn import forget
from tests.consumer.test_logs import create_anew
from tests.ingesting import Topic, consuming
from tests.services import wait_for

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


def test_a_forget_that_a_client_sends_keeps_letters_back_in_every_partition_of_the_dead_letters(
    apache: str, tmp_path: Path
) -> None:
    topic = Topic(apache, tmp_path)
    admin = KafkaAdminClient(bootstrap_servers=apache)
    admin.create_partitions({topic.settings.dead_letter_topic: 4})
    admin.close()
    keys = [b"k%d" % n for n in range(20)]
    with consuming(topic.settings):
        for key in keys:
            topic.send(too_much("gone"), key=key, partition=2)
        topic.wait_stored()
        topic.send(encode(Event("gone", "", 1.0, LONG_AGO, "forget")), key=b"gone", partition=1)
        topic.wait_stored()
    topic.publisher.close()
    letters = [m for m in read_topic(topic.settings, topic.settings.dead_letter_topic) if m.key]
    assert len({letter.partition for letter in letters}) == 4
    assert list(reinject(topic.settings))[-1] == Done(put_back=0, of_forgotten=len(keys))


@pytest.mark.parametrize("put_back_before", [False, True])
def test_letters_of_a_topic_that_was_created_anew_are_no_doubles_of_those_of_the_old_one(
    topic: Topic, put_back_before: bool
) -> None:
    with consuming(topic.settings):
        topic.send(too_much("old"), key=b"old")
        topic.wait_stored()
    if put_back_before:
        assert list(reinject(topic.settings))[-1] == Done(put_back=1)
    create_anew(topic.settings)
    topic.send(too_much("new"), key=b"new")
    topic.publisher.flush()

    def users() -> list[bytes | None]:
        return [letter.key for letter in Letters(topic.settings).letters()]

    waiting = [b"new"] if put_back_before else [b"old", b"new"]
    with consuming(topic.settings):
        wait_for("the new letter", lambda: users() == waiting)
    assert list(reinject(topic.settings))[-1] == Done(put_back=len(waiting))
    assert users() == []


def test_a_mark_of_the_first_version_counts_for_the_letters_before_it_alone(topic: Topic) -> None:
    source = ("source", f"{topic.settings.kafka_topic}/0/0".encode())
    time = ("timestamp", str(LONG_AGO).encode())
    sent: list[tuple[bytes, Headers, int]] = [
        (b"old", [("error", b"e"), source, time], LONG_AGO),
        (b"old", [("error", b"e"), source, time], LONG_AGO + 1),  # written twice
        (b"", [source, ("reinjected", b"")], LONG_AGO + 2),
        (b"new", [("error", b"e"), source, time], LONG_AGO + 3),
    ]
    for value, headers, at in sent:
        topic.publisher.send(topic.settings.dead_letter_topic, value, None, headers, None, at)
    topic.publisher.flush()
    assert [letter.value for letter in Letters(topic.settings).letters()] == [b"new"]


def test_letters_are_put_back_in_blocks_that_are_small_in_bytes_too(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ingest.reinject.TOGETHER_BYTES", 1_000)
    for _ in range(5):
        topic.send(b"x" * 600)
    with consuming(topic.settings):
        topic.wait_stored()
    steps = [each.put_back for each in reinject(topic.settings)]
    assert steps == [2, 4, 5, 5]


def test_a_letter_that_the_broker_finds_too_large_doubles_no_other_one_and_shortens_none(
    apache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.kafka.topics.REQUEST_BYTES", 50_000)  # of the broker's limit
    topic = Topic(apache, tmp_path)
    for size in [1_000] * 20 + [60_000] + [1_000] * 20:
        topic.send(b"x" * size)
    topic.publisher.flush()  # so that one batch has them all
    topic.publisher.close()
    with consuming(topic.settings):
        topic.wait_stored()
    found = [
        (dict(m.headers)["source"], len(m.value or b""))
        for m in read_topic(topic.settings, topic.settings.dead_letter_topic)
    ]
    assert Counter(found) == Counter(
        {
            (f"{topic.settings.kafka_topic}/0/{n}".encode(), 0 if n == 20 else 1_000): 1
            for n in range(41)
        }
    )


class _Publisher:
    """Acknowledges what it is not told to refuse."""

    refused: bytes | None = None

    def __init__(self, settings: ConsumerSettings) -> None:
        self.sent: list[bytes | None] = []

    def send(self, topic: str, value: bytes | None, *rest: object) -> object:
        self.sent.append(value)
        return SimpleNamespace(acknowledged=value != self.refused)

    def partitions(self, topic: str) -> list[int]:
        return [0, 1]

    def flush(self) -> None:
        if self.refused in self.sent:
            raise StreamError("the broker is away")

    def close(self) -> None: ...


def test_what_was_acknowledged_is_not_put_again_but_a_mark_stays_behind_the_letter_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.ingest.dead_letters.Publisher", _Publisher)
    monkeypatch.setattr(_Publisher, "refused", b"second")
    letters = DeadLetters(ConsumerSettings())
    values = [b"first", b"second", b"third"]
    first, second, third = (
        Rejected(Message("t", 0, n, LONG_AGO, b"k", value, []), "wrong", value)
        for n, value in enumerate(values)
    )
    early, late = Forget("early", 0, 0), Forget("late", 0, 2)
    noted: list[Rejected | Forget] = [first, early, second, late, third]
    with pytest.raises(StreamError, match="away"):
        letters.put(noted)
    assert noted == [second, late]
    monkeypatch.setattr(_Publisher, "refused", None)
    letters.put(noted)
    assert noted == []


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


def test_a_re_injection_that_has_begun_leaves_the_letters_of_a_user_whom_a_client_forgets(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ingest.reinject.TOGETHER", 2)
    with consuming(topic.settings):
        for user in ("a", "b", "c", "gone", "gone"):
            topic.send(too_much(user), key=user.encode())
        topic.send(too_much("gone", "d"), key=b"k")
        topic.wait_stored()
        steps = reinject(topic.settings)
        assert next(steps) == Done(put_back=2)
        topic.send(encode(Event("gone", "", 1.0, LONG_AGO, "forget")), key=b"gone")
        topic.wait_stored()
        assert list(steps)[-1] == Done(put_back=4, of_forgotten=2)
        topic.wait_stored()
    assert Letters(topic.settings).holding("gone") == 2
    a, b, _, c, d = [json.loads(value or b"") for value, _ in put_back(topic, before=6)]
    assert [a, b, c, d] == [*(json.loads(too_much(u)) for u in "abc"), [json.loads(too_much("d"))]]


def test_a_message_that_is_rejected_again_while_a_re_injection_runs_is_not_put_back_twice(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ingest.reinject.TOGETHER", 1)
    with consuming(topic.settings):
        for user in "abc":
            topic.send(too_much(user), key=user.encode())
        topic.wait_stored()
        put_back = []
        for done in reinject(topic.settings):
            put_back.append(done.put_back)
            topic.wait_stored()  # and rejected again
            assert len(put_back) < 5
    assert put_back == [1, 2, 3, 3]


def test_a_letter_that_does_not_have_all_of_the_original_is_left_and_counted(
    topic: Topic,
) -> None:
    source = ("source", f"{topic.settings.kafka_topic}/0/0".encode())
    for value, last in ((b"without headers", "truncated"), (b"whole", "timestamp")):
        headers = [("error", b"e"), source, (last, b"")]
        topic.publisher.send(topic.settings.dead_letter_topic, value, b"k", headers)
    topic.publisher.flush()
    assert list(reinject(topic.settings))[-1] == Done(put_back=1, truncated=1)


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
