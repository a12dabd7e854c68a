"""The edge store goes away, comes back, or is another one by then; an empty place is told."""

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore, Replaced, StoreMissing
from consumer.ingest.opening import open_store
from consumer.settings import ConsumerSettings
from process.shutdown import Stopped
from serving.edges.user_edges import UserEdges
from tests.consumer.test_order import put
from tests.graphs import stored
from tests.ingesting import Topic, consuming, likes
from tests.rooms import Rooms
from tests.services import PATIENCE, log, wait_for
from tests.threads import begun
from trainer.graph.weights import Weighing
from trainer.retrain import Retrain
from trainer.settings import TrainerSettings


@pytest.fixture
def topic(embedded: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(embedded, tmp_path)
    yield made
    made.publisher.close()


def items(topic: Topic) -> list[str]:
    return [str(item) for item in topic.rows()["item_id"].to_pylist()]


def test_a_store_that_is_away_for_a_moment_gets_everything_once_and_no_other_is_begun(
    topic: Topic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edges, away = tmp_path / "edges", tmp_path / "away"
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a"]))
        topic.wait_stored()
        edges.rename(away)
        topic.publish(*likes("u", ["b"]))
        wait_for("the line", lambda: "A batch cannot be stored" in caplog.text)
        assert not edges.exists()
        away.rename(edges)
        topic.wait_stored()
    assert items(topic) == ["a", "b"]
    assert caplog.text.count("A batch cannot be stored") == 1
    assert caplog.text.count("Batches are stored again") == 1


@pytest.mark.parametrize("idle", [True, False])
def test_a_store_that_is_replaced_under_a_running_consumer_is_filled_from_the_start(
    topic: Topic, tmp_path: Path, idle: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a", "b"]))
        topic.wait_stored()
        shutil.rmtree(tmp_path / "edges")
        EdgeStore.begin(topic.settings.edge_store, topic.settings.kafka_topic)
        if not idle:
            topic.publish(*likes("u", ["c"]))
        wait_for("the events", lambda: len(items(topic)) == (2 if idle else 3))
        topic.publish(*likes("u", ["d"]))
        wait_for("the last event", lambda: "d" in items(topic))
    assert items(topic) == (["a", "b", "d"] if idle else ["a", "b", "c", "d"])
    lines = [each.getMessage() for each in caplog.records if each.name == "consumer"]
    assert sum("another" in line for line in lines) == 1


@pytest.mark.parametrize("idle", [True, False])
def test_a_store_that_is_put_back_to_an_older_state_is_filled_with_what_it_lacks(
    topic: Topic, tmp_path: Path, idle: bool
) -> None:
    edges, backup = tmp_path / "edges", tmp_path / "backup"
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a"]))
        topic.wait_stored()
        shutil.copytree(edges, backup)
        topic.publish(*likes("u", ["b"]))
        topic.wait_stored()
        shutil.rmtree(edges)
        backup.rename(edges)
        if not idle:
            topic.publish(*likes("u", ["c"]))
        wait_for("all events", lambda: len(items(topic)) == (2 if idle else 3))
    assert items(topic) == (["a", "b"] if idle else ["a", "b", "c"])


def test_readers_begin_anew_with_a_store_that_was_replaced_or_put_back(tmp_path: Path) -> None:
    place, backup = tmp_path / "edges", tmp_path / "backup"
    store = EdgeStore.begin(str(place), "t")
    put(store, [("u", "i", "view")], [(0, 0)], at=1)
    shutil.copytree(place, backup)
    put(store, [("u", "j", "view")], [(0, 1)], at=2)
    edges = UserEdges(Weighing())
    edges.grow(store)
    trainer = Retrain(
        TrainerSettings(edge_store=str(place), model_store=str(tmp_path / "m"), kafka_topic="t"),
        threading.Event(),
    )
    trainer._read()
    assert len(trainer._edges.graph) == 2

    shutil.rmtree(place)
    with pytest.raises(StoreMissing):
        store.look(edges.watermark)
    trainer._read()
    assert len(trainer._edges.graph) == 2
    backup.rename(place)
    with pytest.raises(Replaced, match="older state"):
        store.look(edges.watermark)
    with pytest.raises(Replaced, match="older state"):
        edges.grow(store)
    put(store, [("u", "k", "view")], [(0, 1)], at=3)  # the state is no older one now
    with pytest.raises(Replaced, match="filled anew"):
        edges.grow(store)
    for _ in range(2):
        trainer._read()
    assert trainer._edges.graph.item_ids.values.to_pylist() == ["i", "k"]

    shutil.rmtree(place)
    EdgeStore.begin(str(place), "t")
    with pytest.raises(Replaced, match="another one"):
        store.look(edges.watermark)
    for _ in range(2):
        trainer._read()
    assert len(trainer._edges.graph) == 0


def test_an_empty_place_is_not_filled_where_the_group_has_stored_before(
    topic: Topic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a"]))
        topic.wait_stored()
        from consumer.kafka.topics import group_offsets

        wait_for("the commit", lambda: group_offsets(topic.settings, topic.settings.kafka_group))
    (tmp_path / "edges").rename(tmp_path / "unmounted")
    (tmp_path / "edges").mkdir()
    opened = begun(open_store, topic.settings, threading.Event(), log)
    wait_for("the line", lambda: "is a volume not mounted?" in caplog.text)
    assert "new-edge-store" in caplog.text
    assert list((tmp_path / "edges").iterdir()) == []
    EdgeStore.begin(topic.settings.edge_store, topic.settings.kafka_topic)  # as the command does
    assert len(stored(opened.result(PATIENCE))) == 0


def test_status_names_a_store_that_is_missing_and_makes_none(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    with Rooms(tmp_path, embedded, redis_url) as rooms:
        done = rooms.run("status")
        assert done.returncode == 1
        assert "there is no edge store" in " ".join(done.stdout.split())
        assert not (tmp_path / "edges").exists()
        assert rooms.run("new-edge-store").returncode == 0
        assert EdgeStore(rooms.settings.edge_store, rooms.settings.kafka_topic).count() == 0


def test_a_running_serving_process_takes_its_edges_from_a_store_that_was_replaced(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"STREAMGCN_COMMIT_SECONDS": "0.2"}
    with Rooms(tmp_path, embedded, redis_url, **settings) as rooms:
        rooms.start("consumer")
        wait_for("the store", lambda: (tmp_path / "edges" / "_delta_log").exists())
        rooms.start("serving")
        wait_for("serving", lambda: "Reading partitions" in rooms.log("serving"))
        (tmp_path / "edges").rename(tmp_path / "old")
        wait_for("the line", lambda: "cannot be read" in rooms.log("serving"))
        assert rooms.run("new-edge-store").returncode == 0
        wait_for("the other line", lambda: "another one than before" in rooms.log("serving"))
        assert rooms.log("serving").count("cannot be read") == 1
        assert "Traceback" not in rooms.log("serving") + rooms.log("consumer")
        assert rooms.stop("serving") == 0
        assert rooms.stop("consumer") == 0


def test_a_broker_that_is_away_is_not_told_as_a_store_that_is_away_nor_after_the_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ConsumerSettings(
        kafka_bootstrap_servers="127.0.0.1:1", edge_store=str(tmp_path / "edges")
    )
    stop = threading.Event()
    opened = begun(open_store, settings, stop, log)
    wait_for("the line", lambda: "Kafka cannot be used" in caplog.text)
    stop.set()
    assert isinstance(opened.exception(PATIENCE), Stopped)
    assert "edge store" not in caplog.text
    caplog.clear()
    with pytest.raises(Stopped):
        open_store(settings, stop, log)
    assert caplog.text == ""
