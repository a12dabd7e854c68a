"""The users' edges grow on a thread while the log goes on."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumer.edge import windows
from consumer.edge.news import News
from consumer.edge.store import EdgeStore, StoreError
from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.growth import Growth
from serving.edges.user_edges import UserEdges
from serving.loop import growing
from serving.loop.forgetting import Forgetting
from serving.loop.growing import Growing
from serving.redis.store import Store
from tests.graphs import append, store
from tests.services import PATIENCE, wait_for
from trainer.graph.weights import Weighing

log = logging.getLogger("serving")


def event(user: str, item: str, at: int = 5, kind: str = "view") -> Event:
    return Event(user, item, 1.0, at, kind)


def growing_of(rows: EdgeStore, edges: UserEdges) -> Growing:
    nowhere = Store("redis://localhost:1/0", "nowhere")
    return Growing(rows, "t", edges, Forgetting(nowhere, edges), log)


def step_until_grown(made: Growing, edges: UserEdges, offset: int) -> None:
    def look() -> bool:
        made.step()
        return edges.watermark.offsets(0) == {0: offset}

    wait_for("the growth", look)


def test_what_the_log_changed_is_taken_from_the_edge_store_once_it_is_of_many_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "CHANGED_USERS", 2)
    edges, rows = UserEdges(Weighing()), store(tmp_path, [("u", "i")])
    edges.grow(rows)
    made = growing_of(rows, edges)
    edges.apply(event("u", "j"), 0, Position(1, 0))
    append(rows, [("u", "j", 1.0, 5), ("v", "j", 1.0, 5)], 1)
    made.step()
    assert made._running is None  # there is one changed user alone
    edges.apply(event("v", "j"), 0, Position(2, 0))
    step_until_grown(made, edges, 3)
    assert not edges.changed
    assert edges.items("u").keys() == {"i", "j"}
    assert edges.items("v").keys() == {"j"}
    made.close()


def test_events_are_taken_while_the_thread_reads_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "CHANGED_USERS", 1)
    edges, rows = UserEdges(Weighing()), store(tmp_path, [("u", "i"), ("gone", "i")])
    edges.grow(rows)
    edges.apply(event("u", "j"), 0, Position(2, 0))
    append(rows, [("u", "j", 1.0, 5)], 2)
    may_read = threading.Event()
    run = Growth.run

    def slow(growth: Growth, *given: Any) -> None:
        assert may_read.wait(PATIENCE)
        run(growth, *given)

    monkeypatch.setattr(Growth, "run", slow)
    made = growing_of(rows, edges)
    made.step()
    edges.dampen(True)
    edges.apply(event("u", "k"), 0, Position(3, 0))
    edges.apply(event("gone", "", kind="forget"), 0, Position(4, 0))
    edges.apply(event("new", "j"), 0, Position(5, 0))
    assert edges.items("u").keys() == {"i", "j", "k"}  # while the thread reads
    may_read.set()
    step_until_grown(made, edges, 3)
    assert edges.items("u").keys() == {"i", "j", "k"}
    assert edges.items("new").keys() == {"j"}
    assert not edges.has("gone")
    assert edges.graph.weighing.dampened
    made.close()


def test_the_first_reading_goes_on_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 1)
    append(store(tmp_path / "edges", [("old", "i")]), [("old", "j")], 1)
    edges = UserEdges(Weighing(), held=frozenset())
    made = growing_of(EdgeStore(str(tmp_path / "edges"), "t"), edges)
    read, starts = News.read, []

    def fail_in_the_midst(news: News) -> Iterator[pa.Table]:
        starts.append(news.watermark.stamp)
        for rows in read(news):
            yield rows
            if len(starts) == 1:
                raise StoreError("the volume is gone")

    monkeypatch.setattr(News, "read", fail_in_the_midst)
    with pytest.raises(StoreError):
        list(made.hold(None))
    list(made.hold(None))
    assert edges.items("old").keys() == {"i", "j"}
    assert starts[0] is None
    assert starts[1]
    made.close()


def test_after_a_failed_look_at_the_edge_store_the_next_one_is_not_put_off_for_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "CHANGED_USERS", 1)
    monkeypatch.setattr(growing, "GROW_AFTER", 0.0)
    edges, rows = UserEdges(Weighing()), store(tmp_path, [("u", "i")])
    edges.grow(rows)
    made = growing_of(rows, edges)
    edges.apply(event("u", "j"), 0, Position(1, 0))
    append(rows, [("u", "j", 1.0, 5)], 1)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> bool:
            raise StoreError("the volume is gone")

        patch.setattr(EdgeStore, "changed", fail)
        made.step()
        assert made.trouble
    step_until_grown(made, edges, 2)
    made.close()


def test_a_growth_whose_ground_has_changed_is_not_used(tmp_path: Path) -> None:
    edges, rows = UserEdges(Weighing()), store(tmp_path, [("u", "i", 1.0, 5)])
    edges.grow(rows)
    growths = [edges.begin_growth() for _ in range(3)]
    for growth in growths:
        growth.run(rows)
    edges.begin(0, 1, 7)  # a partition was gained
    assert edges.finish_growth(growths[0]) is None
    append(rows, [("u", "j", 1.0, 6)], 1)
    edges.grow(rows)
    assert edges.finish_growth(growths[1]) is None
    assert edges.items("u").keys() == {"i", "j"}
    assert edges.watermark.offsets(0) == {0: 2, 1: 7}
    late = edges.begin_growth()
    late.run(rows)
    assert edges.expire(6) == {}
    assert edges.finish_growth(late) is None
    assert edges.items("u").keys() == {"j"}


def test_edges_that_grew_beside_the_log_are_those_that_are_read_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    events = [
        (f"u{rng.integers(5)}", f"i{rng.integers(9)}", 1.0, int(rng.integers(1, 40)),
         "remove" if rng.random() < 0.2 else "view")
        for _ in range(200)
    ]  # fmt: skip
    rows = store(tmp_path / "live", events[:50])
    edges = UserEdges(Weighing())
    edges.grow(rows)
    running: Growth | None = None
    for offset in range(50, 200):
        user, item, _, at, kind = events[offset]
        edges.apply(event(user, item, at, kind), 0, Position(offset, 0))
        if offset % 30 == 10:
            stored = edges.watermark.offsets(0)[0]
            append(rows, events[stored : offset - 5], stored)
            running = edges.begin_growth()
            running.run(rows)
        if offset % 30 == 20 and running:
            assert edges.finish_growth(running) == set()
            running = None
    whole = UserEdges(Weighing())
    whole.grow(store(tmp_path / "whole", events))
    for user in whole.users():
        assert edges.items(user) == whole.items(user)
    assert edges.popular(9).items == whole.popular(9).items
