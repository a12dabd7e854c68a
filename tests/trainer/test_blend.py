from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import trainer.fit.fit
import trainer.model.gradient_training
import trainer.model.lightgcn
import trainer.model.low_pass
from tests.graphs import blocks, graph, own_block
from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own, own
from trainer.embedding.embeddings import Embeddings
from trainer.fit.choose import Chooser
from trainer.fit.evaluate import scorer
from trainer.fit.fit import fit, fit_all
from trainer.graph.holdout import newest_edges
from trainer.graph.interactions import InteractionGraph
from trainer.model import blend
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.network import Network
from trainer.model.progress import quiet

SMALL = Hyperparameters(dim=8, epochs=20, vectors=4, negatives=32, neighbors_kept=16)
SET = replace(SMALL, learned_order=0.0).usual()


def rated() -> InteractionGraph:
    rng = np.random.default_rng(5)
    rows = [
        (f"{b}-{u}", f"{b}-{i}", float(rng.integers(1, 6)))
        for b in range(3)
        for u in range(20)
        for i in rng.choice(12, 6, replace=False)
    ]
    return graph(rows)


@pytest.fixture(scope="module")
def made() -> tuple[InteractionGraph, Embeddings]:
    rows = rated()
    return rows, fit_all(rows, SET, quiet)


def test_all_parts_are_in_the_blend(made: tuple[InteractionGraph, Embeddings]) -> None:
    rows, embeddings = made
    assert embeddings.outgoing.shape == (rows.n_items, 4 + 8)
    assert embeddings.tensors["neighbors"].shape == (rows.n_items, 11)


def test_the_blends_scores_are_the_weighted_sum_of_its_parts_at_unit_spread() -> None:
    rows = rated()
    weighed = SMALL.filled({"neighbors_weight": 0.5, "low_pass_weight": 2.0})
    settings = weighed.without_time().usual()
    fitted = blend.fit(rows, settings, quiet)
    users = torch.arange(rows.n_users)
    expected = torch.zeros(rows.n_users, rows.n_items)
    for part in settings.parts:
        embeddings = fitted[part.name].embeddings(rows, settings)
        scores = embeddings.score(users, own(rows, users))
        expected += (settings.weight(part) or 0) * scores / scores.std(unbiased=False)
    found = scorer(blend.blend(rows, fitted, settings), rows)(users)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_folded_in_user_with_unchanged_edges_has_the_scores_of_the_training(
    made: tuple[InteractionGraph, Embeddings],
) -> None:
    rows, embeddings = made
    everyone = scorer(embeddings, rows)(torch.arange(rows.n_users))
    for user in (0, 7, 59):
        edges = own(rows, torch.tensor([user]))
        order = torch.randperm(len(edges.items))
        assert edges.ages is not None
        mixed = Own(edges.starts, edges.items[order], edges.strengths[order], edges.ages[order])
        alone = embeddings.score(torch.tensor([user]), mixed)
        torch.testing.assert_close(alone[0], everyone[user], atol=1e-6, rtol=1e-6)


def test_the_contributions_of_an_unknown_users_items_sum_to_its_scores(
    made: tuple[InteractionGraph, Embeddings],
) -> None:
    rows, embeddings = made
    edges = own(rows, torch.tensor([3, 8]))
    recommended = torch.tensor([[5, 0, 30], [1, 2, 35]])
    nobody = torch.tensor([-1, -1])
    scores = embeddings.score(nobody, edges).gather(1, recommended)
    shares = embeddings.contributions(nobody, edges, recommended)
    assert shares.shape == (len(edges.items), 3)
    for row, (begin, end) in enumerate(pairwise(edges.starts.tolist())):
        sums = shares[begin:end].sum(0)
        torch.testing.assert_close(sums, scores[row], atol=1e-6, rtol=1e-5)


def test_the_score_of_a_known_user_is_its_items_shares_and_its_own_part(
    made: tuple[InteractionGraph, Embeddings],
) -> None:
    rows, embeddings = made
    user, recommended = torch.tensor([3]), torch.tensor([[5, 0, 30]])
    edges = own(rows, user)
    assert isinstance(embeddings, BlendEmbeddings)
    base = embeddings.tensors["base"][3] / embeddings.learned(user, edges).norm()
    part = embeddings.outgoing[recommended[0], embeddings.vectors :] @ base
    shares = embeddings.contributions(user, edges, recommended).sum(0)
    scores = embeddings.score(user, edges)[0, recommended[0]]
    torch.testing.assert_close(shares + part, scores, atol=1e-6, rtol=1e-5)


def test_a_stronger_edge_counts_more(made: tuple[InteractionGraph, Embeddings]) -> None:
    rows, embeddings = made
    ids = rows.item_ids.values.to_pylist()
    items = torch.tensor([ids.index("0-1"), ids.index("1-1")])
    nobody = torch.tensor([-1, -1])
    strengths = torch.tensor([5.0, 1.0, 1.0, 5.0])
    edges = Own(torch.tensor([0, 2, 4]), items.repeat(2), strengths)
    first, second = embeddings.score(nobody, edges)
    of_block_0 = torch.tensor([i.startswith("0-") for i in ids])
    assert first[of_block_0].mean() > second[of_block_0].mean()


def test_the_blend_recovers_a_planted_structure_with_everything_chosen() -> None:
    rows = blocks()
    fitted = fit(rows, SMALL)
    assert not fitted.settings.missing()
    assert own_block(fitted.embeddings, rows) > 0.99
    assert fitted.metrics["ndcg@20"] > fitted.metrics["popularity_ndcg@20"]


def test_a_blend_does_not_depend_on_which_part_was_fitted_first() -> None:
    rows, settings = rated(), SET.without_time()
    fitted = blend.fit(rows, settings, quiet)
    expected = blend.blend(rows, fitted, settings).tensors
    other = blend.blend(rows, dict(reversed(fitted.items())), settings).tensors
    assert expected.keys() == other.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, other[name])


def test_what_a_choice_leaves_is_the_blend_of_its_settings() -> None:
    """So the figures of a candidate are of what goes live."""
    rows = blocks()
    newest = newest_edges(rows, 0.1)
    kept = rows.subset(~newest)
    chooser = Chooser(kept, rows.subset(newest), SMALL, quiet)
    chooser.choose()
    chosen, anew = (
        blend.blend(kept, fitted, chooser.settings)
        for fitted in (chooser.fitted, blend.fit(kept, chooser.settings, quiet))
    )
    users = torch.arange(kept.n_users)
    torch.testing.assert_close(*(scorer(each, kept)(users) for each in (chosen, anew)))


def test_on_a_large_graph_some_users_choose_and_all_are_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = blocks(users=90)
    monkeypatch.setattr(trainer.fit.fit, "CHOSEN_ON", len(rows) // 3)
    chosen_on = []

    class Watched(Chooser):
        def choose(self) -> None:
            chosen_on.append(len(self._kept))
            super().choose()

    monkeypatch.setattr(trainer.fit.fit, "Chooser", Watched)
    fitted = fit(rows, SMALL)
    assert chosen_on[0] == pytest.approx(len(fitted.kept) / 3, rel=0.05)
    assert not fitted.settings.missing()
    assert own_block(fitted.embeddings, rows) > 0.99
    assert own_block(fitted.candidate, fitted.kept) > 0.99


@pytest.mark.parametrize("epochs", [None, 30])
def test_the_number_of_steps_is_chosen_unless_it_is_set(
    epochs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 steps or 10, where 30 leave nothing but noise."""
    rows = blocks()
    newest = newest_edges(rows, 0.2)

    train = trainer.model.gradient_training.train

    def noise(network: Network, graph: InteractionGraph, *rest: Any) -> None:
        if rest[3] == 10:  # epochs
            train(network, graph, *rest)

    monkeypatch.setattr(trainer.model.lightgcn, "train", noise)
    monkeypatch.setattr(trainer.model.lightgcn, "EPOCHS", 30)
    settings = replace(SMALL, epochs=epochs, neighbors_weight=0.0, low_pass_weight=0.0)
    chooser = Chooser(rows.subset(~newest), rows.subset(newest), settings, quiet)
    chooser.choose()
    assert chooser.settings.epochs == (epochs or 10)


def test_the_number_of_vectors_is_chosen_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many as there are blocks, or more, which tell only of chance."""
    rows = blocks(users=60)
    newest = newest_edges(rows, 0.2)
    monkeypatch.setattr(trainer.model.low_pass, "VECTORS", (40, 4, 2))
    for given, right in ((None, 4), (40, 40)):
        settings = replace(
            SMALL.filled({"low_pass_damping": 0.03, "low_pass_normalization": 0.5}),
            vectors=given, neighbors_weight=0.0, learned_weight=0.0,
        )  # fmt: skip
        chooser = Chooser(rows.subset(~newest), rows.subset(newest), settings, quiet)
        chooser.choose()
        assert chooser.settings.vectors == right
        [state] = blend.state(chooser.fitted, chooser.settings).values()
        assert state.shape == (rows.n_items, right)


def test_what_is_set_is_not_chosen() -> None:
    rows = blocks()
    newest = newest_edges(rows, 0.1)
    settings = Hyperparameters(
        neighbors_item_power=0.77, low_pass_normalization=0.33, learned_weight=0.0, vectors=4
    )
    chooser = Chooser(rows.subset(~newest), rows.subset(newest), settings, quiet)
    chooser.choose()
    assert chooser.settings.neighbors_item_power == 0.77
    assert chooser.settings.low_pass_normalization == 0.33
    assert chooser.settings.learned_weight == 0.0
    assert "learned" not in chooser.fitted


def test_two_trainings_that_choose_on_two_threads_are_the_same() -> None:
    rng = np.random.default_rng(3)
    rows = graph(
        [
            (f"u{user}", f"i{(begin + step) % 12}", 1.0, step + 1)
            for user, begin in enumerate(rng.integers(0, 12, 80))
            for step in range(6)
        ]
    )
    first, second = (fit(rows, SMALL) for _ in range(2))
    assert first.settings == second.settings
    assert first.settings.learned_order
    assert first.metrics == second.metrics
    for name, tensor in first.embeddings.tensors.items():
        assert torch.equal(tensor, second.embeddings.tensors[name])


def test_a_training_goes_on_from_the_last_ones_start() -> None:
    rows = blocks()
    first = fit(rows, SET)
    second = fit(rows, SET, start=first.start)
    assert own_block(second.embeddings, rows) > 0.99
    assert second.start.keys() == first.start.keys() == {"basis", "users", "items"}


def test_a_part_without_weight_leaves_nothing_open() -> None:
    learned = {"learned_power", "temperature", "negative_power", "edge_drop"}
    assert learned < Hyperparameters().missing()
    assert not learned & Hyperparameters(learned_weight=0.0).missing()
    for without, prefix in (
        (Hyperparameters(neighbors_weight=0.0), "neighbors_"),
        (Hyperparameters(low_pass_weight=0.0), "low_pass_"),
    ):
        assert not any(name.startswith(prefix) for name in without.missing())
        assert learned < without.missing()


def test_a_part_that_the_last_training_did_not_have_is_trained_in_full() -> None:
    rows = blocks()
    steps: list[int] = []

    def progress(stage: str, done: int, of: int, loss: float | None) -> None:
        steps.append(of)

    blend.fit(rows, SET, progress, share=10)
    assert set(steps) == {20}
    first = blend.fit(rows, SET, quiet)
    steps.clear()
    blend.fit(rows, SET, progress, blend.state(first, SET), share=10)
    assert set(steps) == {2}


def test_a_few_users_choose_nothing() -> None:
    rows = blocks(n_blocks=2, users=12)
    assert fit(rows, SMALL).settings == SMALL.without_time().usual()
