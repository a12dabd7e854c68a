import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.graphs import Row, blocks, graph, pairs, table
from trainer.graph import order
from trainer.graph.arrays import Int32s, Int64s
from trainer.graph.holdout import held_out_edges, newest_edges
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.graph.weights import DAY_MS, Weighing


def edges(made: InteractionGraph) -> dict[tuple[str, str], float]:
    users, items = made.user_ids.values.to_pylist(), made.item_ids.values.to_pylist()
    ends = zip(made.users, made.items, made.weights, strict=True)
    return {(users[u], items[i]): float(w) for u, i, w in ends}


def test_a_node_keeps_its_number_while_the_graph_grows() -> None:
    made = graph([("b", "y"), ("a", "x")])
    made.extend(table([("c", "x"), ("a", "z"), ("b", "y")]))
    assert made.user_ids.values.to_pylist() == ["b", "a", "c"]
    assert made.item_ids.values.to_pylist() == ["y", "x", "z"]
    assert len(made) == 4


def test_the_last_event_of_a_pair_is_its_edge() -> None:
    made = graph([("u", "i", 1.0), ("u", "j", 2.0), ("u", "i", 3.0)])
    assert edges(made) == {("u", "i"): 3.0, ("u", "j"): 2.0}
    made.extend(table([("u", "j", 5.0), ("v", "i", 4.0)]))
    assert edges(made) == {("u", "i"): 3.0, ("u", "j"): 5.0, ("v", "i"): 4.0}


def test_edges_of_a_user_at_one_time_keep_the_order_in_which_they_were_read() -> None:
    made = graph([("u", "b", 1.0, 5), ("u", "a", 1.0, 5), ("u", "c", 1.0, 6)])
    ages = dict(zip(made.item_ids.values.to_pylist(), made.ages[made.items.argsort()], strict=True))
    assert ages == {"b": 2, "a": 1, "c": 0}
    made.extend(table([("u", "d", 1.0, 5)]))
    ages = dict(zip(made.item_ids.values.to_pylist(), made.ages[made.items.argsort()], strict=True))
    assert ages == {"b": 3, "a": 2, "d": 1, "c": 0}


def test_remove_takes_the_edge_out_until_the_pair_meets_again() -> None:
    made = graph([("u", "i"), ("u", "j"), ("u", "i", 1.0, 0, "remove")])
    assert edges(made) == {("u", "j"): 1.0}
    made.extend(table([("u", "j", 1.0, 0, "remove"), ("u", "i", 2.0, 0, "view")]))
    assert edges(made) == {("u", "i"): 2.0}
    made.extend(table([("u", "i", 1.0, 0, "remove")]))
    assert edges(made) == {}
    assert made.n_users == 1


def test_growing_in_steps_gives_the_same_edges_as_all_at_once() -> None:
    rng = np.random.default_rng(1)
    rows = [
        (f"u{rng.integers(20)}", f"i{rng.integers(20)}", float(n), n, str(kind))
        for n, kind in enumerate(rng.choice(["view", "remove"], 2000, p=[0.7, 0.3]))
    ]
    whole, steps = graph(rows), InteractionGraph()
    for begin in range(0, 2000, 137):
        steps.extend(table(rows[begin : begin + 137]))
    assert edges(steps) == edges(whole)
    assert np.array_equal(steps.users, np.sort(steps.users))


def test_the_newest_edges_are_each_users_own() -> None:
    rows = [(f"u{u}", f"i{i}", 1.0, 100 * u + i, "view") for u in range(3) for i in range(20)]
    rows += [("rare", f"i{i}", 1.0, i, "view") for i in range(4)]
    made = graph(rows)
    newest = made.subset(newest_edges(made, 0.1))
    assert set(edges(newest)) == {(f"u{u}", f"i{i}") for u in range(3) for i in (18, 19)}


def test_a_user_of_five_edges_has_its_newest_one_held_out() -> None:
    made = graph([("u", f"i{i}", 1.0, -i, "view") for i in range(5)])
    assert set(edges(made.subset(newest_edges(made, 0.1)))) == {("u", "i0")}


def test_without_times_the_held_out_edges_are_random_ones() -> None:
    made = graph([(f"u{u}", f"i{i}") for u in range(200) for i in range(10)])
    held_out = made.subset(newest_edges(made, 0.1))
    assert held_out.user_degrees.tolist() == [1] * 200
    assert held_out.item_degrees.max() < 50  # by item number it were 200 of one item


def test_own_gives_the_items_of_a_block_of_users() -> None:
    made = graph([("a", "x"), ("a", "y"), ("b", "z"), ("c", "x")])
    starts, items, strengths, _ = made.own(np.array([2, 0]))
    assert starts.tolist() == [0, 1, 3]
    assert items.tolist() == [0, 0, 1]
    assert strengths.tolist() == [1, 1, 1]


def test_the_adjacency_is_the_symmetrically_normalised_one_both_ways() -> None:
    made = blocks(2, 5, 4, 3)
    dense = np.zeros((made.n_users, made.n_items))
    dense[made.users, made.items] = 1
    expected = dense / np.sqrt(dense.sum(1, keepdims=True) * dense.sum(0))
    adjacency = Adjacency.of(made, torch.device("cpu"))
    np.testing.assert_allclose(adjacency.by_user.to_dense(), expected, rtol=1e-6)
    np.testing.assert_allclose(adjacency.by_item.to_dense(), expected.T, rtol=1e-6)
    assert adjacency.incidence.edge_index.shape == (2, 2 * len(made))
    assert adjacency.incidence.edge_index[:, 0].tolist() == [
        made.users[0],
        made.items[0] + made.n_users,
    ]


def test_every_nth_user_keeps_its_edges_and_all_items() -> None:
    rows = graph([(f"u{n}", f"i{n % 3}") for n in range(7)] + [("u3", "i2")])
    users = rows.user_ids.values.take(rows.user_ids.by_hash).to_pylist()[::3]
    some = rows.every(3)
    assert len(users) == 3
    assert pairs(some) == [row for row in pairs(rows) if row[0] in users]
    assert sorted(some.user_ids.values.to_pylist()) == sorted(users)
    assert some.n_items == 3
    assert pairs(rows.every(1)) == pairs(rows)


def test_the_order_of_users_does_not_tell_who_came_first_and_leaves_out_who_is_gone() -> None:
    users = [f"u{n}" for n in range(50)]
    in_order = []
    for came in (users, users[::-1]):
        made = graph([(user, "i") for user in came[:20]])
        assert len(made.user_ids.by_hash) == 20
        made.extend(table([(user, "i") for user in came[20:]]))
        made.forget([came.index("u7")])
        in_order.append(made.user_ids.values.take(made.user_ids.by_hash).to_pylist())
        assert made.user_ids.hashes[came.index("u7")] == 0
    assert in_order[0] == in_order[1]
    assert sorted(in_order[0]) == sorted(set(users) - {"u7"})
    assert in_order[0] != sorted(in_order[0])


def test_a_store_with_huge_interactions_from_before_they_were_refused_is_finite() -> None:
    rows = graph([("u", "i", 1e300), ("u", "i", -1e300), ("v", "i", 1e39)])
    assert np.isfinite(rows.weights).all()
    assert np.isfinite(rows.item_strengths).all()


def test_what_is_held_out_at_random_is_held_out_again_when_others_have_come() -> None:
    rows = [(f"u{u}", f"i{i}") for u in range(40) for i in range(0, 20, 2)]
    before = graph(rows)
    after = graph([*rows, *((f"u{u}", "i0") for u in range(40, 60))])
    held = before.subset(newest_edges(before, 0.2))
    assert len(held) == 80
    assert pairs(after.subset(newest_edges(after, 0.2))) == pairs(held)
    assert len(set(held.items.tolist())) > 5


def test_what_users_dislike_is_not_held_out_from_a_model_that_ranks() -> None:
    rows: list[Row] = [("u", f"i{n}", 1.0, n) for n in range(20)]
    rows += [("u", f"d{n}", -1.0, 100 + n) for n in range(20)]
    made = graph(rows)
    held_out = made.subset(held_out_edges(made))
    names = made.item_ids.values.take(held_out.items).to_pylist()
    assert sorted(names) == ["i18", "i19"]
    ratings = made.subset(held_out_edges(made, liked=False))
    assert len(ratings) == 4
    assert (ratings.weights < 0).all()


def test_no_event_has_happened_after_it_was_taken_whenever_the_graph_is_made() -> None:
    """A client's clock that is ahead: the edge is of when the consumer took it, now and later."""
    rows = table([("u", "i", 1.0, 9_000), ("u", "j", 1.0, 4_000), ("u", "k", 1.0, 4_000)])
    taken = pa.array([5_000_000, 5_000_000, None], pa.timestamp("us", tz="UTC"))
    made = InteractionGraph()
    made.extend(rows.append_column("ingested_at", taken))
    assert made.timestamps.tolist() == [5_000, 4_000, 4_000]


@pytest.mark.parametrize("forgotten", ["u", "newest"])
def test_forgetting_a_user_leaves_all_others_ages_and_strengths_and_sorts_nothing_again(
    forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        (user, item, 1.0, at * DAY_MS)
        for user, item, at in (
            ("u", "i", 4), ("u", "j", 2), ("v", "i", 3), ("v", "j", 1), ("newest", "i", 9),
            ("newest", "j", 8),
        )
    ]  # fmt: skip
    made = InteractionGraph(weighing=Weighing(half_life=1.0))
    made.extend(table(rows))
    anew = InteractionGraph(weighing=made.weighing)
    anew.extend(table([row for row in rows if row[0] != forgotten]))
    expected = anew.ages, anew.strengths
    assert made.ages.any()
    assert made.strengths.any()

    def refuse(*_: object) -> None:
        raise AssertionError("all edges are sorted again")

    monkeypatch.setattr("trainer.graph.order.by_time", refuse)
    made.forget([made.user_ids.values.to_pylist().index(forgotten)])
    np.testing.assert_array_equal(made.ages, expected[0])
    np.testing.assert_allclose(made.strengths, expected[1])


@pytest.mark.parametrize("seed", range(4))
def test_a_graph_that_grows_by_parts_is_the_graph_of_all_rows_and_so_are_its_ages(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(600):
        user, item = f"u{draw.integers(12)}", f"i{draw.integers(30)}"
        kind = "remove" if draw.random() < 0.15 else "view"
        rows.append((user, item, float(draw.integers(-2, 6)), int(draw.integers(40)), kind))
    weighing = Weighing(events="sum", half_life=3.0)
    whole = InteractionGraph(weighing=weighing)
    whole.extend(table(rows))
    parts = InteractionGraph(weighing=weighing)
    begin = 0
    while begin < len(rows):
        end = begin + int(draw.integers(1, 60))
        numbers = parts.extend(table(rows[begin:end]))
        ids = parts.user_ids.values.take(pa.array(numbers)).to_pylist()
        assert ids == [row[0] for row in rows[begin:end]]
        if draw.random() < 0.5:
            assert len(parts.ages) == len(parts)
        begin = end
    assert parts.user_ids.values.equals(whole.user_ids.values)
    for name in ("users", "items", "timestamps", "places", "ages"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_allclose(parts.weights, whole.weights, rtol=1e-5, atol=1e-6)


def test_where_few_users_have_new_edges_the_edges_of_these_alone_are_sorted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[Row] = [(f"u{n % 5}", f"i{n}", 1.0, n) for n in range(50)]
    made, whole = graph(rows), graph([*rows, ("u3", "i0", 1.0, 60), ("new", "i0", 1.0, 61)])
    assert made.ages.any()
    sorted_users: list[set[int]] = []

    def by_time(users: Int32s, timestamps: Int64s, places: Int64s) -> Int64s:
        sorted_users.append(set(users.tolist()))
        return np.lexsort((places, timestamps, users))

    monkeypatch.setattr("trainer.graph.order.by_time", by_time)
    made.extend(table([("u3", "i0", 1.0, 60), ("new", "i0", 1.0, 61)]))
    np.testing.assert_array_equal(made.ages, whole.ages)
    assert sorted_users[0] == {3, 5}


@pytest.mark.parametrize("span", [0, 1, 1_000, 2**40, 2**56 - 1, 2**56, 2**62])
def test_edges_are_in_the_order_of_users_times_and_places_however_far_apart_the_times_are(
    span: int,
) -> None:
    draw = np.random.default_rng(span % 97)
    users = np.sort(draw.integers(0, 50, 3_000)).astype(np.int32)
    users[-1] = 63  # six bits, which leave 57 to the times
    times = draw.integers(-span, span, 3_000, endpoint=True)
    times[:2] = -span, span
    places = draw.permutation(3_000)
    expected = np.lexsort((places, times, users))
    np.testing.assert_array_equal(order.by_time(users, times, places), expected)
    assert not len(order.by_time(users[:0], times[:0], places[:0]))
