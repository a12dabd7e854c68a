"""An offset belongs to a log, a store to a topic."""

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from consumer.edge.store import EdgeStore, WrongTopic
from consumer.event.json import FORGET, Event
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from consumer.settings import ConsumerSettings
from tests import services
from tests.consumer.test_order import FIRST_EDITION, edges_of, put
from tests.graphs import stored
from tests.ingesting import Topic, consuming, likes
from tests.reading import read
from tests.rooms import Rooms
from tests.services import wait_for
from tests.threads import at_once

ANEW = re.compile(r"Topic \S+ was created anew")


@pytest.fixture
def topic(kafka: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(kafka, tmp_path)
    yield made
    made.publisher.close()


def create_anew(settings: ConsumerSettings) -> None:
    """Delete the topic and create it again."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    name = settings.kafka_topic
    admin.delete_topics([name])
    wait_for("the topic to go", lambda: name not in admin.list_topics())

    def created() -> bool:
        try:
            wait_for_topics(settings, threading.Event(), services.log)
        except KafkaError:
            return False
        return True

    wait_for("the topic", created)
    admin.close()


def items(store: EdgeStore) -> list[str]:
    return [str(item) for item in stored(store)["item_id"].to_pylist()]


def test_all_of_a_topic_that_was_created_anew_is_stored_after_what_was_there(
    topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = [f"old{n}" for n in range(10)], [f"new{n}" for n in range(15)]
    with consuming(topic.settings):
        topic.publish(*likes("u", old))
        store = topic.wait_stored()
    create_anew(topic.settings)  # while no consumer runs; it is longer than before
    topic.publish(*likes("u", new))
    with consuming(topic.settings):
        wait_for("the new log", lambda: store.count() == 25)
        topic.publish(Event("u", "new0", 1.0, 1_700_000_000_000, "remove"))
        wait_for("the last event", lambda: store.count() == 26)
    assert items(store) == [*old, *new, "new0"]
    assert edges_of(store) == {("u", item) for item in [*old, *new[1:]]}
    assert len(ANEW.findall(caplog.text)) == 1


@pytest.mark.parametrize("length", [3, 30])
def test_a_topic_that_is_created_anew_under_a_running_consumer_is_read_from_its_start(
    topic: Topic, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = [f"old{n}" for n in range(10)], [f"new{n}" for n in range(length)]
    with consuming(topic.settings):
        topic.publish(*likes("u", old))
        store = topic.wait_stored()
        create_anew(topic.settings)
        topic.publish(*likes("u", new))
        wait_for("the new log", lambda: store.count() == 10 + length)
        topic.publish(*likes("u", ["last"]))
        wait_for("the last event", lambda: store.count() == 11 + length)
    assert items(store) == [*old, *new, "last"]
    assert len(ANEW.findall(caplog.text)) == 1


def test_who_is_forgotten_in_a_new_log_is_erased_from_the_older_ones_too(topic: Topic) -> None:
    with consuming(topic.settings):
        topic.publish(*likes("gone", ["a"]), *likes("here", ["a"]), partition=2)
        store = topic.wait_stored()
    create_anew(topic.settings)
    with consuming(topic.settings):
        topic.publish(*likes("gone", ["b"]), Event("gone", "", 1.0, 1_700_000_000_000, FORGET))
        topic.publish(*likes("gone", ["c"]))
        topic.wait_stored()
    assert edges_of(store) == {("here", "a"), ("gone", "c")}
    assert store.files_with("gone", {0: 2}) == []


def test_a_store_of_the_first_edition_takes_up_its_topic_where_it_left(
    topic: Topic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EdgeStore.begin(topic.settings.edge_store, topic.settings.kafka_topic)
    put(store, [("u", "old", "view")], [(0, 0)], at=1)  # no log was begun, as it was then
    topic.publish(*likes("u", ["old", "new"]))
    with consuming(topic.settings):
        wait_for("the new event", lambda: store.count() == 2)
    assert items(store) == ["old", "new"]
    assert not ANEW.search(caplog.text)
    assert store.newest().number == 0


def test_a_store_of_the_first_edition_whose_topic_is_shorter_by_now_reads_it_from_its_start(
    topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    store = EdgeStore.begin(topic.settings.edge_store, topic.settings.kafka_topic)
    put(store, [("u", f"old{n}", "view") for n in range(9)], [(1, n) for n in range(9)], at=1)
    topic.publish(*likes("u", ["new"]), partition=1)
    with consuming(topic.settings):
        wait_for("the new event", lambda: store.count() == 10)
    assert items(store)[-1] == "new"
    assert store.newest().number == 1
    assert len(ANEW.findall(caplog.text)) == 1


def test_a_topic_that_has_lost_its_end_is_read_again_and_nothing_of_it_is_skipped(
    topic: Topic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("consumer.kafka.subscription.SHORT_SECONDS", 0.5)
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a"]))
        store = topic.wait_stored()
    put(store, [("u", f"lost{n}", "view") for n in range(1, 9)], [(0, n) for n in range(1, 9)], 1)
    topic.publish(*likes("u", ["new"]))  # gets an offset that the store has
    with consuming(topic.settings):
        wait_for("the new event", lambda: items(store)[-1] == "new")
        topic.publish(*likes("u", ["last"]))
        wait_for("the last event", lambda: items(store)[-1] == "last")
    assert items(store) == ["a", *(f"lost{n}" for n in range(1, 9)), "a", "new", "last"]
    assert caplog.text.count("Kafka has lost messages") == 1


def test_consumers_that_meet_a_new_log_at_once_number_it_once(tmp_path: Path) -> None:
    EdgeStore.begin(str(tmp_path), "t")
    stores = [EdgeStore(str(tmp_path), "t") for _ in range(4)]
    found = []

    def begin(store: EdgeStore, topic_id: str) -> None:
        found.append((topic_id, store.begin_log(topic_id, None).number))

    for topic_id in ("first", "second"):
        at_once(*(partial(begin, store, topic_id) for store in stores))
    assert found == [("first", 0)] * 4 + [("second", 1)] * 4


def test_a_consumer_that_learns_late_that_another_has_begun_the_log_takes_that_one(
    tmp_path: Path,
) -> None:
    EdgeStore.begin(str(tmp_path), "t")
    quick, slow = EdgeStore(str(tmp_path), "t"), EdgeStore(str(tmp_path), "t")
    for topic_id in (None, "an id"):
        known = slow.log(topic_id)
        begun = quick.begin_log(topic_id, known)
        assert slow.begin_log(topic_id, known) == begun
    shorter = slow.log("an id")  # Kafka lost messages: both consumers begin another log of this id
    assert quick.begin_log("an id", shorter).number == 2
    assert slow.begin_log("an id", shorter).number == 2


def test_what_serving_had_answered_of_a_log_that_is_gone_does_not_count_for_the_new_one(
    apache: str, tmp_path: Path
) -> None:
    topic = Topic(apache, tmp_path)  # the embedded broker keeps no note with a committed offset
    topic.publish(*likes("u", ["a", "b"]))
    topic.publisher.close()
    with Subscription(topic.settings, "g", services.log, threading.Event()) as subscription:
        wait_for("the messages", lambda: read(subscription) and len(subscription.partitions()) == 4)
        subscription.commit({0: 2})
        wait_for("the commit", lambda: not read(subscription) and subscription.committed(0) == 2)
        subscription.topic_id = "another"
        assert subscription.committed(0) is None


@pytest.mark.parametrize("room", ["consumer", "serving", "trainer", "forget u --verify", "status"])
def test_a_store_of_another_topic_is_refused_in_words(
    room: str, embedded: str, redis_url: str, tmp_path: Path
) -> None:
    rooms = Rooms(tmp_path, embedded, redis_url, KAFKA_TOPIC="renamed")
    shutil.copytree(FIRST_EDITION, tmp_path / "edges")
    with rooms:
        done = rooms.run(*room.split())
    assert done.returncode == 2, done.stdout + done.stderr
    text = " ".join(done.stderr.split())
    assert "holds the events of topic interactions, and KAFKA_TOPIC is renamed" in text
    assert "Traceback" not in text


def test_a_store_knows_its_topic_before_anything_is_in_it(tmp_path: Path) -> None:
    EdgeStore.begin(str(tmp_path), "mine")
    with pytest.raises(WrongTopic, match=r"topic mine, and KAFKA_TOPIC is yours.*KAFKA_TOPIC=mine"):
        EdgeStore(str(tmp_path), "yours")
