import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.graphs import blocks, graph, timed
from tests.trainer.test_snapshots import snapshot
from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import ndcgs, scorer
from trainer.fit.fit import Fit, fit
from trainer.graph.arrays import Float64s, Int8s
from trainer.graph.holdout import KNOWN, UNSEEN
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle import gate
from trainer.lifecycle.gate import objection
from trainer.lifecycle.manifest import Snapshot
from trainer.lifecycle.warm import aligned, aligned_start, tensors
from trainer.model.hyperparameters import Hyperparameters

SETTINGS = Hyperparameters(dim=8, epochs=20, vectors=4, negatives=32).usual()


def timed_blocks() -> InteractionGraph:
    return timed(blocks(edges=9))


def live_of(fitted: Fit, made: InteractionGraph) -> Snapshot:
    manifest = snapshot("20260101T000000.0Z").manifest
    ids = made.user_ids.values, made.item_ids.values
    return Snapshot(manifest, fitted.candidate, *ids, tensors(fitted.start))


def unseen(made: InteractionGraph) -> Int8s:
    return np.full(len(made), UNSEEN, np.int8)


def worthless(fitted: Fit) -> Fit:
    tables = {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in
              fitted.candidate.tensors.items()}  # fmt: skip
    candidate = dataclasses.replace(fitted.candidate, tensors=tables)
    return dataclasses.replace(fitted, candidate=candidate)


def test_a_candidate_as_good_as_the_live_model_goes_live() -> None:
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    assert objection(fitted, made, None, None) == ""
    assert objection(fitted, made, live_of(fitted, made), unseen(made)) == ""


def test_a_candidate_that_does_not_beat_popularity_is_rejected() -> None:
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    figures = {"ndcg@20": 0.1, "popularity_ndcg@20": 0.1}
    text = objection(dataclasses.replace(fitted, metrics=figures), made, None, None)
    assert text == "its ndcg@20 of 0.1000 on the newest edges is not above popularity's 0.1000"


def test_a_candidate_worse_than_the_live_model_is_rejected_by_edges_that_neither_saw() -> None:
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    text = objection(worthless(fitted), made, live_of(fitted, made), unseen(made))
    assert "on edges that are new to the live model 20260101T000000.0Z is below 0.98 of" in text
    seen_all = np.full(len(made), KNOWN, np.int8)
    assert objection(worthless(fitted), made, live_of(fitted, made), seen_all) == ""


def test_who_is_surely_good_enough_is_looked_at_once_and_who_is_not_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []

    def noted(scores: Any, kept: Any, test: Any, most: int) -> Float64s:
        looks.append(most)
        return ndcgs(scores, kept, test, most=most)

    monkeypatch.setattr(gate, "ndcgs", noted)
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    assert objection(fitted, made, live_of(fitted, made), unseen(made)) == ""
    assert looks == [2_500]
    assert objection(worthless(fitted), made, live_of(fitted, made), unseen(made))
    assert looks == [2_500, 2_500, 10_000]


def test_a_gcn_of_ratings_is_judged_by_its_error_not_by_its_ranking() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{i}", float(1 + (u + i) % 5), int(rng.integers(1, 10**6)))
        for u in range(60)
        for i in rng.choice(30, 12, replace=False)
    ]
    made = graph(rows)
    fitted = fit(made, dataclasses.replace(SETTINGS, model="gcn", epochs=60))
    unpopular = fitted.metrics | {"ndcg@20": 0.0, "rmse": 0.9 * fitted.metrics["rmse_mean"]}
    good = dataclasses.replace(fitted, metrics=unpopular)
    assert objection(good, made, None, None) == ""
    assert objection(good, made, live_of(fitted, made), unseen(made)) == ""
    assert "rmse" in objection(worthless(good), made, live_of(fitted, made), unseen(made))
    bad = dataclasses.replace(fitted, metrics=unpopular | {"rmse": 99.0})
    assert "is not below the mean's" in objection(bad, made, None, None)


def test_a_few_users_are_no_verdict() -> None:
    made = graph([("u", f"i{i}") for i in range(9)])
    assert objection(fit(made, SETTINGS), made, None, None) == ""


def renumbered(made: InteractionGraph) -> InteractionGraph:
    """The same edges with other node numbers, one user and one item more."""
    users, items = made.user_ids.values.to_pylist(), made.item_ids.values.to_pylist()
    rows = [
        (users[u], items[i], 1.0, t)
        for u, i, t in zip(made.users, made.items, made.timestamps.tolist(), strict=True)
    ]
    return graph([("new", "fresh"), *rows[::-1]])


def test_a_snapshot_scores_alike_in_the_numbering_of_another_graph() -> None:
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    other = renumbered(made)
    moved: Embeddings = aligned(live_of(fitted, made), other).embeddings
    before = scorer(fitted.candidate, made)(torch.arange(made.n_users))
    after = scorer(moved, other)(torch.arange(other.n_users))
    users = place(other.user_ids.values, made.user_ids.values)
    items = place(other.item_ids.values, made.item_ids.values)
    torch.testing.assert_close(after[users][:, items], before, atol=1e-5, rtol=1e-5)


def test_a_start_is_aligned_and_new_nodes_start_from_zeros() -> None:
    made = timed_blocks()
    fitted = fit(made, SETTINGS)
    other = renumbered(made)
    start = aligned_start(live_of(fitted, made), tensors(fitted.start), other)
    items = place(other.item_ids.values, made.item_ids.values)
    for name in ("incoming", "outgoing"):
        torch.testing.assert_close(start[name][items], fitted.start[name])
        assert not start[name][other.item_ids.values.to_pylist().index("fresh")].any()
    torch.testing.assert_close(start["basis"][items], fitted.start["basis"], atol=1e-3, rtol=1e-2)


def place(among: pa.Array, ids: pa.Array) -> torch.Tensor:
    at = {name: number for number, name in enumerate(among.to_pylist())}
    return torch.tensor([at[name] for name in ids.to_pylist()])
