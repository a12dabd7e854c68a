from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.graphs import blocks, graph, own_block
from trainer.fit.fit import fit_all
from trainer.graph.interactions import InteractionGraph
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.low_pass import low_pass, spectrum
from trainer.model.neighbors import Neighbors, neighbors
from trainer.model.progress import quiet
from trainer.model.rows import Rows

CPU = torch.device("cpu")
SETTINGS = Hyperparameters(
    low_pass_power=0.4, low_pass_damping=0.3, vectors=4, learned_order=0.0
).usual()


def weighted() -> InteractionGraph:
    rng = np.random.default_rng(3)
    pairs = {(int(u), int(i)) for u, i in rng.integers(0, (30, 20), (200, 2))}
    return graph([(f"u{u}", f"i{i}", float(rng.integers(1, 5))) for u, i in sorted(pairs)])


def dense(made: InteractionGraph) -> np.ndarray:
    matrix = np.zeros((made.n_users, made.n_items))
    matrix[made.users, made.items] = made.strengths
    return matrix


def dense_rows(rows: Rows) -> np.ndarray:
    matrix = np.zeros((len(rows.values),) * 2)
    at = np.arange(len(matrix))[:, None]
    np.add.at(matrix, (at, rows.columns.numpy()), rows.values.numpy())
    return matrix


def test_neighbour_rows_are_the_formula_worked_out_densely() -> None:
    made = weighted()
    r = dense(made)
    d_u, d_i = r.sum(1), r.sum(0)
    expected = d_i[:, None] ** -0.5 * (r.T @ (r / d_u[:, None] ** 0.7)) * d_i**-0.3
    np.fill_diagonal(expected, 0)
    found = dense_rows(neighbors(made, 0.7, 0.5, 0.3, kept=20))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_the_nearest_neighbours_are_kept_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = weighted()
    whole = dense_rows(neighbors(made, 0.7, 0.5, 0.3, kept=20))
    monkeypatch.setattr("trainer.model.rows.BLOCK", 30)
    found = dense_rows(neighbors(made, 0.7, 0.5, 0.3, kept=4))
    for row, full in zip(found, whole, strict=True):
        np.testing.assert_allclose(np.sort(row)[-4:], np.sort(full)[-4:], rtol=1e-6)
        assert (row > 0).sum() <= 4


def test_the_spectrum_is_that_of_numpys_dense_svd() -> None:
    made = weighted()
    r = dense(made)
    normal = r / np.sqrt(r.sum(1, keepdims=True) * r.sum(0))
    _, values, vectors = np.linalg.svd(normal)
    found = spectrum(made, 6, CPU)
    np.testing.assert_allclose(found.values, values[:6], rtol=1e-5)
    overlap = np.abs(np.sum(found.vectors.numpy() * vectors[:6].T, 0))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)


def test_the_spectrum_of_more_items_than_vectors_is_that_of_numpys_dense_svd() -> None:
    made = blocks(8, 60, 30, 10)  # eight singular values of 1, then a gap
    r = dense(made)
    normal = r / np.sqrt(r.sum(1, keepdims=True) * r.sum(0))
    _, values, vectors = np.linalg.svd(normal, full_matrices=False)
    found = spectrum(made, 8, CPU)
    np.testing.assert_allclose(found.values, values[:8], rtol=1e-4)
    shared = np.linalg.svd(found.vectors.numpy().T @ vectors[:8].T, compute_uv=False)
    np.testing.assert_allclose(shared, 1, atol=1e-4)


def test_low_pass_scores_are_the_formula_worked_out_densely() -> None:
    made = weighted()
    r = dense(made)
    d_i = r.sum(0)
    _, values, vectors = np.linalg.svd(r / np.sqrt(r.sum(1, keepdims=True) * d_i))
    gain = values**2 / (values**2 + 0.3)
    expected = (r * d_i**-0.4) @ (vectors[:20].T * gain) @ vectors[:20] * d_i**0.4
    incoming, outgoing = low_pass(made, spectrum(made, 20, CPU), 0.4, 0.3)
    found = torch.from_numpy(r).float() @ incoming @ outgoing.T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_low_pass_without_normalisation_is_the_ridge_regression_of_items_on_items() -> None:
    made = weighted()
    r = dense(made)
    gram = r.T @ r
    ridge = 0.03 * np.linalg.eigvalsh(gram)[-1]
    expected = r @ np.linalg.solve(gram + ridge * np.eye(len(gram)), gram)
    found = spectrum(made, 20, CPU, normalization=0.0)
    incoming, outgoing = low_pass(made, found, 0.0, 0.03)
    scores = torch.from_numpy(r).float() @ incoming @ outgoing.T
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_one_round_from_the_last_basis_follows_a_grown_graph() -> None:
    made = blocks(4, 60, 30, 10)
    older = made.subset(np.random.default_rng(0).random(len(made)) < 0.95)
    start = spectrum(older, 8, CPU).vectors
    warm, cold = spectrum(made, 8, CPU, start), spectrum(made, 8, CPU)
    torch.testing.assert_close(warm.values[:4], cold.values[:4], rtol=1e-4, atol=0)


def test_there_are_no_more_vectors_than_the_graphs_rank() -> None:
    made = blocks(3, 10, 4, 4)  # every user has all items of its block: rank 3
    found = spectrum(made, 1_024, CPU)
    np.testing.assert_allclose(found.values[:3], 1, rtol=1e-5)
    assert found.vectors.isfinite().all()
    assert len(found.values) <= 12


@pytest.mark.parametrize("part", ["neighbors", "low_pass"])
def test_a_planted_block_structure_is_recovered_without_training(part: str) -> None:
    made = blocks()
    others = {f"{p.name}_weight": 0.0 for p in SETTINGS.parts if p.name != part}
    embeddings = fit_all(made, replace(SETTINGS, **others), quiet)  # type: ignore[arg-type]
    assert own_block(embeddings, made) == 1.0


def test_the_weights_of_neighbours_have_an_exponent_of_their_own() -> None:
    made = weighted()
    settings = replace(SETTINGS, neighbors_own_power=0.5, neighbors_pair_power=0.7)
    plain = dense_rows(neighbors(made, 0.7, 0.0, 0.2, 256))
    part = Neighbors().fit(made, settings).embeddings(made, settings)
    near = dense_rows(Rows(part.tensors["neighbors"], part.tensors["similarities"]))
    own = made.item_strengths.astype(float) ** -0.5
    np.testing.assert_allclose(near, plain**0.7 * own[:, None], rtol=1e-4, atol=1e-6)
