import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from consumer.edge import windows
from consumer.edge.news import News
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA, TABLE
from consumer.edge.store import EdgeStore, StoreError
from consumer.edge.traces import digest
from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from tests.graphs import Row, append, store, table
from trainer.graph.popularity import HALF_LIFE_MS
from trainer.graph.weights import DAY_MS, Weighing


def event(user: str, item: str, at: int = 0, kind: str = "view") -> Event:
    return Event(user, item, 1.0, at, kind)


def times(edges: UserEdges, user: str) -> dict[str, int]:
    return {item: edge.timestamp for item, edge in edges.items(user).items()}


def test_edges_are_the_stores_and_what_the_log_says_since(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i", 1.0, 5), ("u", "j", 1.0, 6), ("v", "i", 1.0, 7)]))
    assert edges.watermark.offsets(0) == {0: 3}
    edges.apply(event("u", "k", 9), 0, Position(3, 0))
    edges.apply(event("u", "i", kind="remove"), 0, Position(4, 0))
    edges.apply(event("w", "i", 8), 0, Position(5, 0))
    assert times(edges, "u") == {"j": 6, "k": 9}
    assert times(edges, "v") == {"i": 7}
    assert times(edges, "nobody") == {}
    assert edges.users() == ["u", "v", "w"]
    assert edges.n_users == 3


def test_the_log_read_again_ends_in_the_same_edges(tmp_path: Path) -> None:
    log = [event("u", "i", 1), event("u", "j", 2), event("u", "i", kind="remove"), event("u", "k")]
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i", 1.0, 1), ("u", "j", 1.0, 2)]))
    for _ in range(2):
        for offset, each in enumerate(log):
            edges.apply(each, 0, Position(offset, 0))
        assert times(edges, "u") == {"j": 2, "k": 0}


def test_a_forgotten_user_is_had_again_once_it_comes_again(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i"), ("v", "i")]))
    assert edges.has("u")
    edges.apply(event("u", "", kind="forget"), 0, Position(2, 0))
    assert not edges.has("u")
    assert not edges.has("nobody")
    edges.apply(event("u", "j"), 0, Position(3, 0))
    assert edges.has("u")


def erase_gone(made: EdgeStore) -> None:
    """Take the user "gone" out of a store of which two events of partition 0 are stored."""
    forgets = table([("gone", "", 1.0, 0, FORGET)])
    columns = {"kafka_partition": [0], "kafka_offset": [2]}
    for name, numbers in columns.items():
        forgets = forgets.append_column(name, pa.array(numbers, TABLE.field(name).type))
    made.erase(taken(forgets.select(SCHEMA.names).cast(SCHEMA), 0), {0: 2}, made.newest())


@pytest.mark.parametrize("replaced", [False, True])
def test_after_a_failed_reading_of_single_users_the_next_one_needs_no_new_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    made = store(tmp_path / "one", [("gone", "i"), ("u", "i")])
    append(made, [("u", "j")], 0, partition=1)
    edges = UserEdges(Weighing())
    edges.grow(made)
    edges.apply(event("u", "", kind="forget"), 1, Position(1, 0))
    append(made, [("v", "j")], 1, partition=1)  # the store has the place of the forget
    erase_gone(made)
    with monkeypatch.context() as patch:
        fail = Mock(side_effect=StoreError("the volume is gone"))
        patch.setattr("serving.edges.stored_edges.read_again", fail)
        with pytest.raises(StoreError):
            edges.grow(made)
    assert not edges.items("u")
    if replaced:
        assert edges.read_anew(store(tmp_path / "two", [("u", "i")])) == {digest("gone")}
        return
    assert edges.grow(made) == {digest("gone")}
    assert edges.items("u").keys() == {"i", "j"}
    assert edges.grow(made) == set()


def test_a_reading_that_fails_in_the_midst_loses_no_user_who_was_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 1)
    made = store(tmp_path, [("gone", "i"), ("u", "i")])
    erase_gone(made)
    append(made, [("u", "j")], 2)
    edges, read = UserEdges(Weighing()), News.read

    def fail_after_the_notice(news: News) -> Iterator[pa.Table]:
        for rows in read(news):
            if "j" in rows["item_id"].to_pylist():
                raise StoreError("the volume is gone")
            yield rows

    with monkeypatch.context() as patch:
        patch.setattr(News, "read", fail_after_the_notice)
        with pytest.raises(StoreError):
            edges.grow(made)
    assert edges.items("u").keys() == {"i"}
    beside = edges.begin_growth()
    beside.run(made)
    assert beside.result
    assert beside.result.digests == {digest("gone")}
    assert edges.grow(made) == {digest("gone")}
    assert edges.items("u").keys() == {"i", "j"}


def test_growing_forgets_what_the_store_has_and_keeps_what_it_has_not(tmp_path: Path) -> None:
    edges, made = UserEdges(Weighing()), store(tmp_path, [("u", "i")])
    edges.grow(made)
    edges.apply(event("u", "j", 3), 0, Position(1, 0))
    edges.apply(event("v", "k", 4), 0, Position(2, 0))
    append(made, [("u", "j", 1.0, 3)], 1)
    edges.grow(made)
    assert list(edges.changed) == ["v"]
    assert times(edges, "u") == {"i": 0, "j": 3}
    assert times(edges, "v") == {"k": 4}


def test_popular_counts_a_recent_edge_more_than_an_old_one(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    old = [(f"u{n}", "old", 1.0, 0) for n in range(3)]
    edges.grow(store(tmp_path, old))
    edges.apply(event("v", "new", 2 * HALF_LIFE_MS), 0, Position(3, 0))
    items, counts, _ = edges.popular(9)
    assert items == ["new", "old"]
    assert counts.tolist() == pytest.approx([1.0, 3 * math.exp2(-2)])


def test_popular_items_are_told_whatever_the_years_between_the_events(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.apply(event("v", "first", 1_795_532_364_000), 0, Position(0, 0))
    assert edges.popular(9)[0] == ["first"]
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "ancient", 1.0, 0)]))
    edges.apply(event("v", "new", 1_795_532_364_000), 0, Position(1, 0))
    edges.apply(event("w", "new", 1_795_532_364_000), 0, Position(2, 0))
    edges.apply(event("w", "new", kind="remove"), 0, Position(3, 0))
    items, counts, _ = edges.popular(9)
    assert items == ["new"]
    assert counts.tolist() == pytest.approx([1.0])


def test_what_the_log_changes_in_popularity_is_the_same_once_it_is_stored(tmp_path: Path) -> None:
    edges, made = UserEdges(Weighing()), store(tmp_path, [("u", "i", 1.0, 5), ("v", "j", 1.0, 5)])
    edges.grow(made)
    edges.apply(event("u", "k", HALF_LIFE_MS), 0, Position(2, 0))
    edges.apply(event("u", "i", kind="remove"), 0, Position(3, 0))
    edges.apply(event("w", "j", HALF_LIFE_MS), 0, Position(4, 0))
    logged = edges.popular(9)
    late = HALF_LIFE_MS
    append(made, [("u", "k", 1.0, late), ("u", "i", 1.0, 0, "remove"), ("w", "j", 1.0, late)], 2)
    edges.grow(made)
    assert not edges.changed
    stored = edges.popular(9)
    assert stored[0] == logged[0] == ["j", "k"]
    assert stored[1].tolist() == pytest.approx(logged[1].tolist())


def test_edges_weigh_the_same_from_the_log_as_from_the_store(tmp_path: Path) -> None:
    weighing = Weighing("sum", (("buy", 5.0),), half_life=1.0)
    stored, logged = UserEdges(weighing), UserEdges(weighing)
    stored.grow(store(tmp_path, [("u", "i", 3.0, 0), ("u", "i", 1.0, DAY_MS, "buy")]))
    logged.grow(store(tmp_path / "other", [("v", "j", 1.0, DAY_MS)]))
    logged.apply(Event("u", "i", 3.0, 0, "view"), 0, Position(1, 0))
    logged.apply(Event("u", "i", 1.0, DAY_MS, "buy"), 0, Position(2, 0))
    assert stored.items("u") == logged.items("u") == {"i": (DAY_MS, 6.5)}


def test_all_events_of_a_user_in_one_message_count_each_once(tmp_path: Path) -> None:
    edges = UserEdges(Weighing(events="sum"))
    edges.grow(store(tmp_path, [("u", "i")]))
    message = [event("u", "j"), event("u", "k"), event("u", "j"), event("u", "i", kind="remove")]
    for _ in range(2):
        for row, each in enumerate(message):
            edges.apply(each, 0, Position(1, row))
    weights = {item: edge.weight for item, edge in edges.items("u").items()}
    assert weights == {"j": 2.0, "k": 1.0}


def test_what_the_store_has_is_not_taken_from_the_log_again(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i")]))
    edges.begin(0, 1, 5)
    edges.apply(event("u", "", kind="forget"), 1, Position(4, 0))
    assert times(edges, "u") == {"i": 0}
    assert edges.partition("u") == 0
    edges.apply(event("u", "j"), 1, Position(5, 0))
    assert edges.partition("u") == 1
    assert edges.partition("nobody") is None


@pytest.mark.parametrize("events", ["last", "sum", "max"])
def test_strengths_are_finite_however_far_apart_the_events_are(
    events: Literal["last", "sum", "max"], tmp_path: Path
) -> None:
    now = 20_000 * DAY_MS
    edges = UserEdges(Weighing(events=events, half_life=1.0))
    edges.grow(store(tmp_path, [("u", "i", 1e12, now), ("v", "i", 1e12, 5)]))
    edges.apply(event("u", "i", 5), 0, Position(2, 0))
    edges.apply(event("v", "j", 2 * now), 0, Position(3, 0))
    for user in ("u", "v"):
        strengths = [edge.weight for edge in edges.items(user).values()]
        assert np.isfinite(np.array(strengths, np.float32)).all()


def ages_of(edges: UserEdges, user: str) -> dict[str, int]:
    numbers = {item: number for number, item in enumerate(edges.graph.item_ids.values.to_pylist())}
    for item in edges.items(user):
        numbers.setdefault(item, len(numbers))
    block, _ = edges.block([user], np.arange(edges.graph.n_items), numbers)
    assert block.ages is not None
    names = list(numbers)
    return {names[i]: age for i, age in zip(block.items.tolist(), block.ages.tolist(), strict=True)}


def test_an_event_makes_the_users_other_edges_older_at_once(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i", 1.0, 5), ("u", "j", 1.0, 6), ("v", "i", 1.0, 7)]))
    assert ages_of(edges, "u") == {"i": 1, "j": 0}
    edges.apply(event("u", "k", 9), 0, Position(3, 0))
    assert ages_of(edges, "u") == {"i": 2, "j": 1, "k": 0}
    edges.apply(event("u", "i", 10), 0, Position(4, 0))
    assert ages_of(edges, "u") == {"i": 0, "j": 2, "k": 1}
    edges.apply(event("u", "k", kind="remove"), 0, Position(5, 0))
    assert ages_of(edges, "u") == {"i": 0, "j": 1}
    assert ages_of(edges, "v") == {"i": 0}


def test_ages_are_the_same_from_the_log_and_from_the_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    events = [
        (f"u{rng.integers(4)}", f"i{rng.integers(9)}", 1.0, int(rng.integers(1, 40)))
        for _ in range(120)
    ]
    live, stored = UserEdges(Weighing()), UserEdges(Weighing())
    live.grow(store(tmp_path / "half", events[:60]))
    for offset, (user, item, _, at) in enumerate(events[60:], 60):
        live.apply(event(user, item, at), 0, Position(offset, 0))
    stored.grow(store(tmp_path / "whole", events))
    for user in ("u0", "u1", "u2", "u3"):
        assert ages_of(live, user) == ages_of(stored, user)


def test_what_users_dislike_or_what_weighs_nothing_is_not_popular(tmp_path: Path) -> None:
    weighing = Weighing(types=(("impression", 0.0),))
    edges = UserEdges(weighing)
    stored: list[Row] = [(f"u{n}", "disliked", -1.0, 5) for n in range(60)]
    stored += [(f"u{n}", "seen", 1.0, 5, "impression") for n in range(60)]
    edges.grow(store(tmp_path, [*stored, ("u0", "liked", 1.0, 5), ("u1", "barely", 0.1, 5)]))
    offset = len(stored) + 2
    for n in range(60):
        edges.apply(Event(f"v{n}", "disliked", -1.0, 5, "view"), 0, Position(offset + n, 0))
        edges.apply(Event(f"v{n}", "seen", 1.0, 5, "impression"), 0, Position(offset + 60 + n, 0))
    items, counts, _ = edges.popular(9)
    assert sorted(items) == ["barely", "liked"]
    assert counts.tolist() == pytest.approx([1.0, 1.0])


def test_an_edge_that_turns_from_like_to_dislike_leaves_the_popular_list_and_comes_back(
    tmp_path: Path,
) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i", 1.0, 5), ("v", "j", 1.0, 5)]))
    for offset, (weight, popular) in enumerate([(-1.0, ["j"]), (2.0, ["i", "j"]), (0.0, ["j"])], 2):
        edges.apply(Event("u", "i", weight, 5, "view"), 0, Position(offset, 0))
        assert sorted(edges.popular(9)[0]) == popular
        assert edges.likes("u", "i") == (weight > 0)
    edges.apply(event("u", "", kind="forget"), 0, Position(5, 0))
    assert edges.popular(9)[0] == ["j"]
