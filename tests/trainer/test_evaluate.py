import math

import numpy as np
import pytest
import torch

from tests.graphs import graph, pairs, table
from trainer.embedding.predictions import rmse
from trainer.fit.evaluate import popularity, ranking
from trainer.fit.fit import fit_all
from trainer.fit.served import measure_served
from trainer.graph.holdout import last_edges
from trainer.graph.interactions import InteractionGraph
from trainer.model.biases import predicted_by_biases
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet


def with_test(
    train: list[tuple[str, str]], test: list[tuple[str, str]]
) -> tuple[InteractionGraph, InteractionGraph]:
    kept = graph(train)
    tested = InteractionGraph(kept.user_ids, kept.item_ids)
    tested.extend(table(test))
    return kept, tested


def test_recall_and_ndcg_are_the_ones_worked_out_by_hand() -> None:
    kept, tested = with_test(
        [("a", "0"), ("b", "1"), ("b", "2"), ("b", "3"), ("b", "4")], [("a", "2"), ("a", "4")]
    )
    scores = torch.tensor([[9.0, 5.0, 4.0, 3.0, 2.0]])  # 0 is owned; ranked: 1, 2, 3, 4
    figures = ranking(lambda users: scores[: len(users)].clone(), kept, tested, [3])
    assert figures["recall@3"] == 1 / 2
    ideal = 1 + 1 / math.log2(3)
    assert figures["ndcg@3"] == pytest.approx((1 / math.log2(3)) / ideal)


def test_each_place_that_is_asked_for_has_a_hit_rate_a_recall_and_an_ndcg_of_its_own() -> None:
    kept, tested = with_test(
        [("a", "0"), ("b", "1"), ("b", "2"), ("b", "3"), ("b", "4")],
        [("a", "2"), ("a", "4"), ("b", "0")],
    )
    scores = torch.tensor([[9.0, 5.0, 4.0, 3.0, 2.0], [1.0, 5.0, 4.0, 3.0, 2.0]])
    figures = ranking(lambda users: scores[users].clone(), kept, tested, [1, 2, 20])
    second = 1 / math.log2(3)
    assert figures == pytest.approx(
        {
            "hit_rate@1": 1 / 2, "recall@1": 1 / 2, "ndcg@1": 1 / 2,
            "hit_rate@2": 1.0, "recall@2": 3 / 4, "ndcg@2": (second / (1 + second) + 1) / 2,
            "hit_rate@20": 1.0, "recall@20": 1.0,
            "ndcg@20": ((second + 1 / math.log2(5)) / (1 + second) + 1) / 2,
        }
    )  # fmt: skip


def test_only_users_with_test_edges_count() -> None:
    kept, tested = with_test([("a", "x"), ("b", "y"), ("c", "z")], [("b", "x")])
    figures = ranking(popularity(kept), kept, tested, [2])
    assert figures == {"hit_rate@2": 1.0, "recall@2": 1.0, "ndcg@2": 1.0}


def test_what_a_user_did_not_like_is_neither_right_nor_popular() -> None:
    kept = graph([("a", "x"), ("b", "x", -1.0), ("c", "x", -1.0), ("a", "y"), ("b", "y")])
    tested = InteractionGraph(kept.user_ids, kept.item_ids)
    tested.extend(table([("c", "y"), ("b", "x", -1.0)]))
    assert popularity(kept)(torch.tensor([0])).tolist() == [[1.0, 2.0]]
    figures = ranking(popularity(kept), kept, tested, [1])
    assert figures == {"hit_rate@1": 1.0, "recall@1": 1.0, "ndcg@1": 1.0}


def test_popularity_ranks_by_the_number_of_edges() -> None:
    kept, _ = with_test([("a", "x"), ("b", "y"), ("c", "y")], [("a", "y")])
    assert popularity(kept)(torch.tensor([0, 1])).tolist() == [[1.0, 2.0]] * 2


def test_rmse_is_the_root_of_the_mean_square() -> None:
    assert rmse(np.array([1, 2], np.float32), np.array([4, 6], np.float32)) == pytest.approx(
        math.sqrt(12.5)
    )


def test_biases_recover_ratings_that_are_a_sum_of_two_ends() -> None:
    rng = np.random.default_rng(0)
    user_part, item_part = rng.normal(size=60), rng.normal(size=60)
    rows = [
        (f"u{u}", f"i{i}", 3 + user_part[u] + item_part[i])
        for u in range(60)
        for i in range(60)
        if (u + i) % 7
    ]
    made = graph(rows)
    predicted = predicted_by_biases(made, made, damping=0.0)
    assert rmse(predicted, made.weights) < 0.01


NEIGHBORS = Hyperparameters(
    low_pass_weight=0.0, learned_weight=0.0, neighbors_weight=1.0, neighbors_kept=16,
    neighbors_user_power=0.5, neighbors_own_power=0.5, neighbors_item_power=0.5,
)  # fmt: skip


def test_new_users_are_measured_by_the_popular_list_that_they_are_served() -> None:
    week = 7 * 86_400_000
    old = [(f"o{n}", f"hit{n % 10}", 1.0, week) for n in range(60)]
    late = [(f"l{n}", f"trend{n % 10}", 1.0, 20 * week) for n in range(30)]
    rest = [(f"r{n}", f"x{n}", 1.0, week) for n in range(30)]
    kept = graph([*old, *late, *rest, ("o0", "x0", 1.0, week)])
    tested = InteractionGraph(kept.user_ids, kept.item_ids)
    tested.extend(table([*((f"new{n}", f"trend{n % 10}") for n in range(20)), ("o0", "hit1")]))
    kept = kept.subset(kept.users >= 0)
    figures = measure_served(fit_all(kept, NEIGHBORS, quiet), kept, tested)
    new, known = figures["new_users"], figures["known_users"]
    assert (new["users"], known["users"], figures["all_users"]["users"]) == (20, 1, 21)
    assert new["recall@20"] == 1.0  # ten trends are the most popular of late
    assert new["ndcg@20"] == pytest.approx(np.mean(1 / np.log2(np.arange(2, 12))))
    assert new["popularity_ndcg@20"] < new["ndcg@20"]  # ten hits of old stand before them
    assert figures["all_users"]["recall@20"] == pytest.approx((20 + known["recall@20"]) / 21)


def test_pairs_that_are_in_train_too_leave_the_denominator() -> None:
    kept, tested = with_test(
        [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z")], [("a", "x"), ("a", "z"), ("b", "y")]
    )
    figures = measure_served(fit_all(kept, NEIGHBORS, quiet), kept, tested)
    assert figures["known_users"]["users"] == 1
    assert figures["all_users"]["recall@20"] == 1.0
    assert figures["new_users"] == {"users": 0}


def test_users_whose_train_edges_have_no_strength_are_new() -> None:
    kept = graph([("a", "x"), ("b", "x"), ("b", "y"), ("c", "z", -1.0)])
    tested = InteractionGraph(kept.user_ids, kept.item_ids)
    tested.extend(table([("c", "x")]))
    figures = measure_served(fit_all(kept, NEIGHBORS, quiet), kept, tested)
    assert figures["new_users"] == {
        "users": 1, "hit_rate@20": 1.0, "recall@20": 1.0, "ndcg@20": 1.0,
        "popularity_hit_rate@20": 1.0, "popularity_recall@20": 1.0, "popularity_ndcg@20": 1.0,
    }  # fmt: skip


def test_the_last_edge_of_a_user_is_the_newest_one_that_is_liked_and_never_the_only_one() -> None:
    made = graph(
        [
            ("a", "x", 1.0, 3), ("a", "y", 1.0, 1), ("a", "z", 1.0, 2), ("b", "x", 1.0, 9),
            ("c", "x", 1.0, 1), ("c", "y", 1.0, 2), ("c", "z", -1.0, 3),
        ]
    )  # fmt: skip
    last = last_edges(made)
    assert pairs(made.subset(last)) == [("a", "x"), ("c", "y")]
    before = made.subset(~last)
    assert pairs(before.subset(last_edges(before))) == [("a", "z")]
