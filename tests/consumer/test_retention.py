"""Edges that are older than the retention leave the store, running graphs, lists and models."""

import time
from pathlib import Path

import pytest

from consumer.edge import retention
from consumer.edge.retention import Retention
from consumer.event.json import Event
from consumer.ingest.decode import Position
from process.health import Health
from process.log import Figures
from process.running import Running
from serving import serve
from serving.edges.user_edges import UserEdges
from serving.redis.store import Store
from serving.settings import ServingSettings
from tests.graphs import append, pairs, store, stored
from tests.ingesting import Topic, consuming
from tests.services import wait_for
from tests.threads import running
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import DAY_MS, Weighing
from trainer.lifecycle import schedule
from trainer.retrain import Retrain

NOW = int(time.time() * 1000)
OLD, LATE = NOW - 20 * DAY_MS, NOW - DAY_MS
OLDEST = NOW - 10 * DAY_MS
ROWS = [
    ("lapsed", "a", 1.0, OLD),
    ("half", "a", 1.0, OLD),
    ("half", "b", 1.0, LATE),
    ("back", "b", 1.0, OLD),
    ("removed", "b", 1.0, OLD),
    ("stays", "c", 1.0, LATE),
]
LOG = [
    Event("back", "c", 1.0, LATE, "view"),
    Event("half", "d", 1.0, OLD, "view"),
    Event("removed", "b", 1.0, OLD, "remove"),
    Event("new and old", "d", 1.0, OLD, "view"),
]


def test_what_expires_while_a_process_runs_is_what_it_would_not_read_again(tmp_path: Path) -> None:
    edges, made = UserEdges(Weighing()), store(tmp_path, ROWS)
    edges.grow(made)
    for number, event in enumerate(LOG):
        edges.apply(event, 0, Position(len(ROWS) + number, 0))
    assert edges.expire(OLDEST) == {"lapsed": 0, "new and old": 0, "removed": 0}
    assert edges.take_settled() == {"half", "back"}

    rows = [(e.user_id, e.item_id, e.interaction, e.timestamp, e.type) for e in LOG]
    append(made, rows, len(ROWS))
    assert made.tidy(retention_days=10) == 6
    again = UserEdges(Weighing())
    again.grow(made)
    users = {"half", "back", "stays"}
    assert set(edges.users()) == set(again.users()) - {"removed"} == users
    assert edges.items("removed") == again.items("removed") == {}
    assert {u: edges.items(u) for u in users} == {u: again.items(u) for u in users}
    assert set(edges.popular(9)[0]) == set(again.popular(9)[0]) == {"b", "c"}
    assert edges.popular(9)[1].tolist() == pytest.approx(again.popular(9)[1].tolist())
    assert edges.expire(OLDEST) == {}

    edges.apply(Event("lapsed", "c", 1.0, LATE, "view"), 0, Position(99, 0))
    assert edges.has("lapsed")
    assert list(edges.items("lapsed")) == ["c"]


def test_a_graph_loses_old_edges_and_users_whose_edges_are_all_old(tmp_path: Path) -> None:
    graph, made = InteractionGraph(), store(tmp_path, ROWS)
    graph.extend(stored(made))
    assert len(graph.strengths) == len(ROWS)
    touched = graph.expire(OLDEST)
    assert touched.tolist() == [0, 1, 2, 3]
    assert pairs(graph) == [("half", "b"), ("stays", "c")]
    assert len(graph.strengths) == 2
    assert graph.user_ids.values.to_pylist() == ["", "half", "", "", "stays"]
    assert not len(graph.expire(OLDEST))


def test_a_look_for_old_edges_is_due_so_often_that_none_stays_long() -> None:
    assert Retention(None).due() is None
    month = Retention(30)
    assert month.every == 3_600
    before = time.time()
    oldest = month.due()
    assert oldest is not None
    assert before - 1 < oldest / 1000 + 30 * 86_400 < time.time() + 1
    assert month.due() is None
    assert Retention(1 / 24).every == pytest.approx(36)


class Clock:
    """The `time` that tells which edges are old; the test moves this clock on."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


def test_on_a_quiet_topic_old_edges_leave_the_store_the_trainer_and_the_lists(
    embedded: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock, kept = Clock(), 7_200  # seconds
    monkeypatch.setattr(retention, "time", clock)
    monkeypatch.setattr(retention, "OVERDUE", 0.0)  # so that each process looks every second
    monkeypatch.setattr(schedule, "REST", 0.0)
    topic = Topic(embedded, tmp_path)
    settings = ServingSettings(
        **topic.settings.model_dump(exclude={"retention_days"}),
        retention_days=kept / 86_400, epochs=2, min_edges=60, retrain_seconds=1,
        model_store=str(tmp_path / "models"), device="cpu",
        redis_url=redis_url, redis_prefix=topic.settings.kafka_topic,
    )  # fmt: skip
    new = int(time.time() * 1000)
    old = new - (kept - 1_800) * 1_000  # expires in half an hour
    lists = Store(redis_url, settings.redis_prefix)
    with (
        running(lambda stop: serve.run(settings, Running(stop, Figures("serving"), Health()))),
        running(lambda stop: Retrain(settings, stop).run()),
        consuming(settings),
    ):
        for user in range(20):
            items = (f"i{(user + n) % 12}" for n in range(5))
            topic.publish(*(Event(f"u{user}", item, 1.0, new, "view") for item in items))
        topic.publish(*(Event("lapsed", f"old{n}", 1.0, old, "view") for n in range(3)))
        topic.publish(
            Event("half", "old0", 1.0, old, "view"), Event("half", "i3", 1.0, new, "view")
        )
        wait_for("a list of the user whose edges expire", lambda: lists.user("lapsed"))
        wait_for("the model of all edges", lambda: lists.model().get("edges") == "105")
        first = wait_for("the other list", lambda: lists.user("half"))
        clock.ahead = 2_000.0
        wait_for("the rows to leave", lambda: len(topic.rows()) == 101)
        wait_for("the line", lambda: "4 rows older than" in caplog.text)
        wait_for("the edges to leave the graph", lambda: "4 edges older" in caplog.text)
        wait_for("the list to go", lambda: not lists.user("lapsed"))

        def rewritten() -> bool:
            found = lists.user("half")
            return bool(found and found.updated_at > first.updated_at)

        wait_for("the list of the user who has an edge left", rewritten)

        def without_old_items() -> bool:
            popular = lists.popular()
            return bool(popular and not any(item.startswith("old") for item in popular.items))

        wait_for("the popular list", without_old_items)
        wait_for("a model of what is left", lambda: lists.model().get("edges") == "101")
    lists.close()
    topic.publisher.close()
