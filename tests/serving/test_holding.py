"""Several processes that share the partitions: together they hold what one holds that has all."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumer.edge import windows
from consumer.edge.news import News
from consumer.edge.store import StoreError
from consumer.edge.traces import digest
from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.popularity import together
from tests.graphs import append
from tests.holding import Process, Topic, hold


@pytest.mark.parametrize("moves", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_processes_hold_together_what_one_holds_however_users_and_partitions_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: float, seed: int
) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 40)
    monkeypatch.setattr("serving.edges.strangers.FEWEST", 5)
    monkeypatch.setattr("serving.edges.stored_edges.FEW_BLANKS", 5)
    topic = Topic(tmp_path, seed, moves)
    topic.publish(120)
    topic.store(90)
    first, second = Process(topic), Process(topic)
    first.assign(0, 1, 2, 3)
    shares = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((3,), (0, 1, 2)), ((0, 1, 2, 3), ())]
    for round_, (one, other) in enumerate(shares):
        topic.publish(30)
        first.read()
        topic.store(25)
        if round_ % 2:
            first.grow()
        topic.publish(10)
        first.read()
        first.assign(*one)
        if other:
            second.assign(*other)
        topic.publish(20)
        first.read()
        second.read()
        topic.store(len(topic.events))
        processes = [first, second] if other else [first]
        for process in processes:
            process.grow()
            process.grow()  # who left a process that had an event of the user leaves now
        whole = topic.whole()
        for process in processes:
            assert not process.edges.changed
            process.check(whole)
        counted = together([process.edges.popular(99) for process in processes], 99)
        measured = whole.popular(99)
        assert set(counted.items) == set(measured.items)
        # The edge that counts were taken as of may have been taken back since.
        np.testing.assert_allclose(sorted(counted.counts), sorted(measured.counts), rtol=1e-6)


def test_a_user_who_comes_by_another_partition_waits_for_the_edges_that_are_elsewhere(
    tmp_path: Path,
) -> None:
    topic = Topic(tmp_path, 0, 0.0)
    append(topic.rows, [("u", "a", 1.0, 5), ("v", "a", 1.0, 5)], 0, 1)
    topic.ends[1] = 2
    process = Process(topic)
    process.assign(0)
    assert not process.edges.has("u")
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]
    process.edges.apply(Event("u", "b", 1.0, 6, "view"), 0, Position(0, 0))
    assert process.edges.is_missing("u")
    assert process.edges.unsettled == {"u"}
    process.edges.apply(Event("new", "b", 1.0, 6, "view"), 0, Position(1, 0))
    assert not process.edges.is_missing("new")
    process.grow()
    assert not process.edges.is_missing("u")
    assert "u" in process.edges.take_settled()
    assert list(process.edges.items("u")) == ["a", "b"]  # also before the store has the event
    append(topic.rows, [("u", "b", 1.0, 6), ("new", "b", 1.0, 6)], 0, 0)
    process.grow()
    assert not process.edges.changed
    assert list(process.edges.items("u")) == ["a", "b"]
    assert not process.edges.has("v")


def test_a_user_whose_events_go_over_to_another_process_is_held_no_more(tmp_path: Path) -> None:
    topic = Topic(tmp_path, 0, 0.0)
    append(topic.rows, [("u", "a", 1.0, 5)], 0, 0)
    process = Process(topic)
    process.assign(0)
    append(topic.rows, [("u", "b", 1.0, 6)], 0, 1)
    process.grow()
    assert not process.edges.has("u")
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]
    assert not process.edges.popular(9).items


@pytest.mark.parametrize(
    ("before", "held", "reading"),
    [
        ([], [0], "shared"),
        ([0], [0, 1], "shared_before"),
        ([0], [0, 1, 2, 3], "shared_before"),
        ([0], [0, 1], "rows_before"),
    ],
)
def test_a_holding_that_fails_half_way_is_made_good_by_the_next_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: list[int],
    held: list[int],
    reading: str,
) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 10)
    topic = Topic(tmp_path, 1, 0.2)
    for _ in range(6):
        topic.publish(20)
        topic.store(20)
    process = Process(topic)
    if before:
        process.assign(*before)
    read = getattr(News, reading)

    def fail(*given: Any) -> Iterator[object]:
        yield next(read(*given))
        raise StoreError("the volume is gone")

    with monkeypatch.context() as patch:
        patch.setattr(News, reading, fail)
        with pytest.raises(StoreError):
            process.assign(*held)
    process.assign(*held)
    process.check(topic.whole())


def test_a_user_whose_edges_were_read_half_way_has_all_of_them_after_the_next_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 2)
    topic = Topic(tmp_path, 0, 0.0)
    for offset, item in enumerate("abcdef"):
        append(topic.rows, [("u", item, 1.0, 5 + offset)], offset, 1)
    topic.ends[1] = 6
    process = Process(topic)
    process.assign(0)
    process.edges.apply(Event("u", "g", 1.0, 20, "view"), 0, Position(0, 0))
    assert process.edges.is_missing("u")
    read = News.rows_before

    def fail(news: News, users: Collection[str]) -> Iterator[pa.Table]:
        yield next(rows for rows in read(news, users) if len(rows))
        raise StoreError("the volume is gone")

    with monkeypatch.context() as patch:
        patch.setattr(News, "rows_before", fail)
        with pytest.raises(StoreError):
            process.assign(0)
    process.assign(0)
    assert list(process.edges.items("u")) == list("abcdefg")


@pytest.mark.parametrize(
    "sequence",
    [
        [(), (0, 1)],
        [(0, 1), (), (0, 1)],
        [(), (0, 1, 2, 3)],
        [(0, 1, 2, 3), (), (0, 1, 2, 3)],
        [(0, 1, 2), (0, 1), (1, 3)],
    ],
)
def test_what_a_process_holds_depends_on_its_last_partitions_alone(
    tmp_path: Path, sequence: list[tuple[int, ...]]
) -> None:
    topic = Topic(tmp_path, 3, 0.1)
    topic.publish(80)
    topic.store(80)
    process = Process(topic)
    for mine in sequence:
        process.assign(*mine)
    process.check(topic.whole())


def test_partitions_that_are_lost_are_no_reason_to_read_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(tmp_path, 3, 0.1)
    topic.publish(80)
    topic.store(80)
    process = Process(topic)
    process.assign(0, 1, 2)

    def fail(*_: object) -> None:
        raise AssertionError("the store is read")

    monkeypatch.setattr(News, "shared_before", fail)
    process.assign(0, 1)
    process.check(topic.whole())


def test_who_takes_a_partition_over_hears_who_was_forgotten_while_another_process_had_it(
    tmp_path: Path,
) -> None:
    topic = Topic(tmp_path, 0, 0.0)
    append(topic.rows, [("gone", "a"), ("other", "a")], 0, 1)
    topic.ends[1] = 2
    process = Process(topic)
    process.assign(0)
    assert process.edges.unknown(["gone"]) == []  # another process's to delete
    topic.erase("gone", 1)
    process.grow()
    assert process.edges.unknown(["gone"]) == []  # that process may be gone by now
    assert hold(process.edges, topic.rows, frozenset({0, 1})) == {digest("gone")}
    assert process.edges.unknown(["gone", "other"]) == ["gone"]
