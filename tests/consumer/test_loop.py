"""The consumer's loop, driven step by step on a topic in memory and a real edge store."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from consumer.edge.store import EdgeStore, StoreError
from consumer.edge.table import Table
from consumer.ingest.commit import Writer
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.decode import Rejected
from consumer.ingest.letters import Forget
from consumer.ingest.loop import Ingest
from consumer.ingest.metrics import METRICS
from consumer.settings import ConsumerSettings
from process.log import Figures
from tests.fake_topic import TOPIC, FakeReader, FakeTopic, log
from tests.graphs import append, stored
from tests.ingesting import likes
from tests.services import wait_for


class NoLetters(DeadLetters):
    """Stands for a topic of dead letters that takes all."""

    def put(self, noted: list[Rejected | Forget]) -> None:
        noted.clear()


@dataclass
class Consumer:
    """A consumer of which the test makes each round."""

    reader: FakeReader
    loop: Ingest
    writer: Writer

    @classmethod
    def of(cls, topic: FakeTopic, folder: Path) -> Consumer:
        settings = ConsumerSettings(
            kafka_topic=TOPIC, edge_store=str(folder / "edges"), commit_seconds=0.01
        )
        store, written = (EdgeStore.begin(settings.edge_store, TOPIC) for _ in range(2))
        reader, writer = FakeReader(topic), Writer(written, NoLetters(settings), log)
        return cls(reader, Ingest(settings, threading.Event(), reader, store, writer), writer)

    def rounds_until(self, condition: Callable[[], bool]) -> None:
        def made() -> bool:
            self.loop.round()
            return condition()

        wait_for("the loop", made)

    def take(self) -> None:
        """A round after which no commit is due yet."""
        with patch.object(self.loop, "_begin_commit"):
            self.loop.round()

    def figures(self, caplog: pytest.LogCaptureFixture) -> dict[str, int]:
        """What the next line of figures says."""
        self.loop._report()
        return dict(caplog.records[-1].__dict__["figures"])

    def stop(self) -> None:
        """What the process does when it is told to stop."""
        self.loop._stop.set()
        self.loop.run()

    def store_all(self) -> None:
        """Go on until everything is stored that this member can read."""
        self.rounds_until(lambda: not self.reader.lag() and not self.loop.is_behind())


@pytest.fixture
def topic() -> FakeTopic:
    return FakeTopic()


@pytest.fixture
def consumers(topic: FakeTopic, tmp_path: Path) -> Iterator[list[Consumer]]:
    made = [Consumer.of(topic, tmp_path) for _ in range(2)]
    yield made
    for each in made:
        each.writer.close()


@pytest.fixture
def consumer(consumers: list[Consumer]) -> Consumer:
    return consumers[0]


def items(folder: Path) -> list[str]:
    rows = stored(EdgeStore(str(folder / "edges"), TOPIC))
    return [str(item) for item in rows["item_id"].to_pylist()]


def test_messages_are_stored_once_in_order_past_the_marks_of_transactions(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path
) -> None:
    consumer.reader.assign(0)
    topic.mark_transaction(0)
    for name in "abcdefgh":
        topic.publish(0, *likes("u", [name]))
        topic.mark_transaction(0)
    topic.publish(0, *likes("u", ["last"]))
    consumer.store_all()
    assert items(tmp_path) == [*"abcdefgh", "last"]
    assert consumer.reader.committed_offsets == {0: topic.end[0]}


def test_kafka_is_told_also_of_messages_that_were_all_rejected(
    topic: FakeTopic, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.reader.assign(0)
    topic.send(0, b"no event")
    consumer.store_all()
    consumer.rounds_until(lambda: not consumer.writer.busy)
    assert consumer.reader.committed_offsets == {0: 1}
    assert "Rejected 1 messages or rows, which go to topic t.dead" in caplog.text


def test_a_message_that_is_read_again_after_a_rebalance_counts_once_as_rejected(
    topic: FakeTopic, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    consumer.reader.assign(0)
    topic.publish(0, *likes("u", ["a"]))
    topic.send(0, b"no event")
    for _ in range(2):
        consumer.take()
    consumer.reader.assign(0)
    consumer.take()  # the batch is dropped
    assert not consumer.loop.is_behind()
    assert consumer.figures(caplog)["rejected"] == 0
    with patch("consumer.ingest.decode._json", side_effect=KeyError("unforeseen")):
        topic.send(0, b"{}")
        consumer.store_all()
    assert consumer.figures(caplog)["rejected"] == consumer.figures(caplog)["unforeseen"] == 3
    assert consumer.figures(caplog)["events"] == 0


def test_batches_of_consumers_that_began_in_step_are_not_due_at_the_same_moment(
    consumer: Consumer,
) -> None:
    filling = consumer.loop._filling
    filling._settings = filling._settings.model_copy(update={"commit_seconds": 4.0})
    due: dict[float, int] = Counter()  # seconds -> batches of 50 that are due then
    for _ in range(50):
        filling.begin_next()
        filling.batch.after[0] = 1
        with patch("consumer.ingest.filling.time") as clock:
            for seconds in (2.9, 3.5, 4.0):
                clock.monotonic.return_value = filling.batch.since + seconds
                due[seconds] += filling.is_due
    filling.drop()
    assert due[2.9] == 0
    assert 0 < due[3.5] < 50
    assert due[4.0] == 50


def test_a_commit_that_another_consumers_was_before_is_counted_in_the_metrics_alone(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    metrics = Figures("consumer", METRICS)
    consumer.loop._figures = metrics
    consumer.reader.assign(0)
    topic.publish(0, *likes("u", ["a"]))
    other, real = EdgeStore(str(tmp_path / "edges"), TOPIC), Table.append

    def after_another(table: Table, *given: Any) -> None:
        monkeypatch.undo()
        append(other, [("v", "b")], 0, partition=1)
        real(table, *given)

    with pytest.MonkeyPatch.context() as monkeypatch:
        consumer.take()
        monkeypatch.setattr(Table, "append", after_another)
        consumer.store_all()
    assert "conflicts" not in consumer.figures(caplog)
    name = "streamgcn_consumer_commit_conflicts_total"
    assert metrics.metrics.registry.get_sample_value(name) == 1
    assert sorted(items(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("taken", ["stored", "stored by another", "of a topic before"])
def test_a_consumer_that_stops_says_whether_all_that_it_has_taken_is_stored(
    topic: FakeTopic, consumers: list[Consumer], caplog: pytest.LogCaptureFixture, taken: str
) -> None:
    caplog.set_level("INFO")
    stopped, other = consumers
    topic.publish(0, *likes("u", ["a"]))
    for each in consumers:
        each.reader.assign(0)
    for _ in range(2):
        stopped.take()
    assert stopped.loop.is_behind()
    if taken == "stored by another":
        other.store_all()
    elif taken == "of a topic before":
        topic.create_anew()
    stopped.stop()
    said = caplog.records[-1].message
    assert ("everything taken from Kafka is stored" in said) == (taken == "stored")
    assert ("will be read again" in said) == (taken != "stored")


def test_what_was_taken_of_a_lost_partition_is_left_to_the_next_owner(
    topic: FakeTopic, consumers: list[Consumer], tmp_path: Path
) -> None:
    before, after = consumers
    before.reader.assign(0, 1)
    topic.publish(0, *likes("u", ["a", "b"]))
    before.take()
    before.take()  # the events are in the batch, and not stored
    assert items(tmp_path) == []
    before.reader.assign(1)
    after.reader.assign(0)
    after.store_all()
    topic.publish(1, *likes("v", ["c"]))
    before.store_all()
    assert Counter(items(tmp_path)) == Counter("abc")


def test_messages_of_a_partition_that_is_lost_in_the_middle_of_a_poll_are_not_taken(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path
) -> None:
    consumer.reader.assign(0)
    consumer.loop.round()
    topic.publish(0, *likes("u", ["a"]))
    consumer.reader.before_messages = lambda: consumer.reader.assign(1)
    consumer.loop.round()
    assert not consumer.loop.is_behind()
    consumer.reader.before_messages = lambda: None
    consumer.reader.assign(0)
    consumer.store_all()
    assert items(tmp_path) == ["a"]


def test_a_member_that_does_not_know_that_it_lost_a_partition_stores_nothing_twice(
    topic: FakeTopic, consumers: list[Consumer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in consumers:
        each.reader.assign(0)  # both at once, as while a session has not run out yet
        each.loop.round()
    topic.publish(0, *likes("u", ["a", "b", "c"]))
    for each in consumers:
        each.loop.round()
        assert each.loop.is_behind()
    for each in consumers:
        each.store_all()
    assert items(tmp_path) == ["a", "b", "c"]
    assert caplog.text.count("batch are stored already") == 1


def test_the_events_of_a_topic_that_was_created_anew_come_after_those_of_the_old_one(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.reader.assign(0, 1)
    topic.publish(0, *likes("u", ["a", "b", "c"]))
    consumer.store_all()
    topic.publish(0, *likes("u", ["lost"]))
    consumer.take()
    topic.create_anew()
    topic.publish(0, *likes("u", ["d"]))
    consumer.store_all()
    assert items(tmp_path) == ["a", "b", "c", "d"]
    assert "was created anew. The stored events" in caplog.text


def test_a_topic_that_has_lost_its_end_is_read_again_as_another_log(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.reader.assign(0)
    topic.publish(0, *likes("u", ["a", "b", "c"]))
    consumer.store_all()
    topic.lose_from(0, 1)
    consumer.store_all()
    assert items(tmp_path) == ["a", "b", "c", "a"]
    assert "Kafka has lost messages" in caplog.text
    assert "was created anew" not in caplog.text


def test_a_consumer_is_told_that_another_one_has_found_the_topic_to_have_lost_its_end(
    topic: FakeTopic, consumers: list[Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = consumers
    first.reader.assign(0)
    second.reader.assign(1)
    topic.publish(0, *likes("u", ["a", "b", "c"]))
    topic.publish(1, *likes("v", ["a"]))
    first.store_all()
    second.store_all()
    topic.lose_from(0, 1)
    first.store_all()
    second.reader.assign(1)
    second.store_all()
    assert "another consumer has found that Kafka has lost messages of it" in caplog.text
    assert "was created anew" not in caplog.text


def test_offsets_that_retention_deleted_unread_are_passed_over_and_told(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.reader.assign(0)
    topic.publish(0, *likes("u", ["a"]))
    consumer.store_all()
    consumer.reader.assign()
    topic.publish(0, *likes("u", ["b", "c", "d"]))
    topic.delete_before(0, 3)
    consumer.reader.assign(0)
    consumer.store_all()
    assert items(tmp_path) == ["a", "d"]
    assert "has deleted the offsets 1 to 2 of partition 0 unread" in caplog.text


def test_partitions_wait_while_the_store_cannot_tell_where_to_begin(
    topic: FakeTopic, consumer: Consumer, tmp_path: Path
) -> None:
    topic.publish(0, *likes("u", ["a"]))
    consumer.reader.assign(0)
    (tmp_path / "edges").rename(tmp_path / "away")
    consumer.loop.round()
    assert isinstance(consumer.reader.postponed[-1], StoreError)
    (tmp_path / "away").rename(tmp_path / "edges")
    consumer.store_all()
    assert items(tmp_path) == ["a"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_whatever_order_each_event_is_stored_once(
    topic: FakeTopic, consumers: list[Consumer], tmp_path: Path, seed: int
) -> None:
    chance, published = random.Random(seed), 0

    def publish() -> None:
        nonlocal published
        partition = chance.randrange(2)
        topic.publish(partition, *likes(f"u{partition}", [str(published)]))
        published += 1

    def move() -> None:
        chance.choice(consumers).reader.assign(*chance.sample([0, 1], chance.randrange(3)))

    def move_in_a_poll() -> None:
        chosen = chance.choice(consumers)
        chosen.reader.before_messages = move
        chosen.loop.round()
        chosen.reader.before_messages = lambda: None

    def go_on() -> None:
        chance.choice(consumers).loop.round()

    def mark() -> None:
        topic.mark_transaction(chance.randrange(2))

    for _ in range(120):
        chance.choice([publish, publish, go_on, go_on, go_on, move, move_in_a_poll, mark])()
    for each in consumers:
        each.reader.assign()
        each.loop.round()
    topic.publish(0, *likes("u0", ["end"]))
    topic.publish(1, *likes("u1", ["end"]))
    consumers[0].reader.assign(0, 1)
    consumers[0].store_all()
    counted = Counter(items(tmp_path))
    assert counted.pop("end") == 2
    assert counted == Counter(map(str, range(published)))
