import math

import numpy as np
import pytest
import torch

from tests.graphs import graph, table
from trainer.biases import predicted_by_biases
from trainer.evaluate import popularity, ranking, rmse
from trainer.graph import InteractionGraph


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
    figures = ranking(lambda users: scores[: len(users)].clone(), kept, tested, k=3)
    assert figures["recall@3"] == 1 / 2
    ideal = 1 + 1 / math.log2(3)
    assert figures["ndcg@3"] == pytest.approx((1 / math.log2(3)) / ideal)


def test_only_users_with_test_edges_count() -> None:
    kept, tested = with_test([("a", "x"), ("b", "y"), ("c", "z")], [("b", "x")])
    figures = ranking(popularity(kept), kept, tested, k=2)
    assert figures == {"recall@2": 1.0, "ndcg@2": 1.0}


def test_what_a_user_did_not_like_is_neither_right_nor_popular() -> None:
    kept = graph([("a", "x"), ("b", "x", -1.0), ("c", "x", -1.0), ("a", "y"), ("b", "y")])
    tested = InteractionGraph(kept.user_ids, kept.item_ids)
    tested.extend(table([("c", "y"), ("b", "x", -1.0)]))
    assert popularity(kept)(torch.tensor([0])).tolist() == [[1.0, 2.0]]
    assert ranking(popularity(kept), kept, tested, k=1) == {"recall@1": 1.0, "ndcg@1": 1.0}


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
