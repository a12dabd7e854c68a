"""Transitions and recency, on graphs where what comes next is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.graphs import graph, table
from trainer.embedding.edges import Own, own
from trainer.fit.evaluate import scorer
from trainer.fit.fit import fit as fit_and_choose
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model import transitions as module
from trainer.model.blend import blend, fit
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet
from trainer.model.transitions import transitions

ALONE = Hyperparameters(neighbors_weight=0.0, low_pass_weight=0.0, learned_weight=0.0)


def dense(made: InteractionGraph, t: float, b: float, p: float, q: float, reach: int) -> np.ndarray:
    rows = transitions(made, t, b, p, q, reach, made.n_items)
    values = np.zeros((made.n_items, made.n_items), np.float32)
    np.add.at(values, (np.arange(made.n_items)[:, None], rows.columns.numpy()), rows.values.numpy())
    return values


def walks(seed: int = 0) -> InteractionGraph:
    """Random users with random items at random times, some of them disliked."""
    rng = np.random.default_rng(seed)
    return graph(
        [
            (f"u{user}", f"i{item}", float(rng.integers(-1, 4)), int(rng.integers(1, 10**6)))
            for user in range(12)
            for item in rng.choice(15, rng.integers(1, 12), replace=False)
        ]
    )


def by_two_loops(
    made: InteractionGraph, t: float, b: float, p: float, q: float, reach: int
) -> np.ndarray:
    degrees = made.item_strengths
    expected = np.zeros((made.n_items, made.n_items))
    for user in range(made.n_users):
        mine = np.flatnonzero(made.users == user)
        mine = mine[np.argsort(made.timestamps[mine], kind="stable")]
        for at, first in enumerate(mine):
            for later, second in enumerate(mine):
                distance = later - at
                liked = made.strengths[first] > 0 and made.strengths[second] > 0
                if distance and abs(distance) <= reach and liked:
                    k = abs(distance) ** -t * (1 if distance > 0 else b)
                    expected[made.items[first], made.items[second]] += k
    return power(degrees, -p)[:, None] * expected * power(degrees, -q)


@pytest.mark.parametrize("reach", [3, 50])
def test_transitions_are_what_two_plain_loops_make(
    reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAIRS", 40)  # some edges at a time
    monkeypatch.setattr("trainer.model.rows.BLOCK", 30)  # some rows at a time
    made = walks()
    found, expected = (f(made, 0.5, 0.2, 0.7, 0.3, reach) for f in (dense, by_two_loops))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def chain(users: int = 60, length: int = 12, steps: int = 6) -> InteractionGraph:
    """Each user walks some steps a, b, c, ... round a ring of items."""
    return graph(
        [
            (f"u{user}", f"i{(user + step) % length}", 1.0, 1000 + step)
            for user in range(users)
            for step in range(steps)
        ]
    )


def test_of_a_chain_the_next_item_comes_first_and_the_one_before_does_not() -> None:
    made = chain()
    settings = replace(ALONE, recency=1.0, transitions_weight=1.0).usual()
    scores = scorer(blend(made, fit(made, settings, quiet), settings), made)
    users = torch.arange(made.n_users)
    scored = scores(users)
    seen = own(made, users)
    scored[seen.rows(), seen.items] = -torch.inf
    best = scored.argmax(1)
    newest = made.items[made.by_time()].reshape(made.n_users, -1)[:, -1]
    number = np.array([int(item[1:]) for item in made.item_ids.values.to_pylist()])
    assert (number[best] == (number[newest] + 1) % 12).all()

    undirected = replace(settings, transitions_weight=0.0, neighbors_weight=1.0, recency=0.0)
    plain = scorer(blend(made, fit(made, undirected, quiet), undirected), made)(users)
    after = [np.flatnonzero(number == (n + 1) % 12)[0] for n in number[newest]]
    first = made.items[made.by_time()].reshape(made.n_users, -1)[:, 0]
    before = [np.flatnonzero(number == (n - 1) % 12)[0] for n in number[first]]
    torch.testing.assert_close(plain[users, after], plain[users, before])


def test_of_two_tastes_the_newer_one_wins_as_recency_says() -> None:
    """Two items, each with one follower; with recency 1 the newer edge counts twice the older."""
    made = graph(
        [
            row
            for n in range(20)
            for row in (
                (f"a{n}", "old", 1.0, 1), (f"a{n}", "after old", 1.0, 2),
                (f"b{n}", "new", 1.0, 1), (f"b{n}", "after new", 1.0, 2),
            )
        ]
    )  # fmt: skip
    ids = made.item_ids.values.to_pylist()
    edges = Own(
        torch.tensor([0, 2]),
        torch.tensor([ids.index("old"), ids.index("new")]),
        torch.ones(2),
        torch.tensor([1, 0]),
    )
    for recency, times in ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0)):
        settings = replace(ALONE, recency=recency, transitions_weight=1.0).usual()
        embeddings = blend(made, fit(made, settings, quiet), settings)
        scores = embeddings.score(torch.tensor([-1]), edges)[0]
        ratio = float(scores[ids.index("after new")] / scores[ids.index("after old")])
        assert ratio == pytest.approx(times, rel=1e-5)


def test_recency_leaves_the_sum_of_a_users_strengths_and_the_order_of_equal_ages() -> None:
    edges = Own(
        torch.tensor([0, 3, 3, 5]),
        torch.arange(5),
        torch.tensor([1.0, 2, 3, 4, 4]),
        torch.tensor([2, 1, 0, 0, 0]),
    )
    recent = edges.recent(0.7)
    torch.testing.assert_close(recent.sums(), edges.sums())
    torch.testing.assert_close(recent.strengths[3:], edges.strengths[3:])
    expected = torch.tensor([1.0 * 3**-0.7, 2 * 2**-0.7, 3])
    torch.testing.assert_close(recent.strengths[:3], expected * 6 / expected.sum())


def test_users_whose_edges_all_have_one_time_have_no_order() -> None:
    made = graph([("u", "a", 1.0, 5), ("u", "b", 1.0, 5), ("v", "a", 1.0, 5), ("v", "b", 1.0, 6)])
    assert made.timed.tolist() == [False, True]
    assert made.ages.tolist() == [0, 0, 1, 0]
    rows = transitions(made, 0.5, 0.0, 0.0, 0.0, 50, 2)
    assert rows.values.sum() == 1.0  # of v, from a to b


def test_what_the_graph_forgets_or_takes_back_has_no_age() -> None:
    made = graph([("u", "a", 1.0, 5), ("u", "b", 1.0, 6), ("u", "c", 1.0, 7)])
    assert made.ages.tolist() == [2, 1, 0]
    made.extend(table([("u", "c", 1.0, 8, "remove"), ("u", "a", 1.0, 9)]))
    assert made.ages.tolist() == [0, 1]


def test_on_times_that_mean_something_order_is_used_and_on_shuffled_ones_it_is_not() -> None:
    small = Hyperparameters(vectors=8, learned_weight=0.0)
    made = chain(users=240, length=40, steps=12)
    assert fit_and_choose(made, small).settings.transitions_weight

    shuffled = chain(users=240, length=40, steps=12)
    rng = np.random.default_rng(3)
    shuffled.timestamps = rng.permutation(len(shuffled)).astype(np.int64)
    chosen = fit_and_choose(shuffled, small).settings
    assert chosen.recency == 0
    assert chosen.transitions_weight == 0
    weighed = fit_and_choose(shuffled, replace(small, transitions_weight=2.0)).settings
    assert weighed.transitions_weight == 2  # what is set is not taken back


def test_in_large_graphs_pairs_reach_less_far() -> None:
    plain = Hyperparameters()
    assert plain.for_graph(2_000_000, timed=True) == plain
    assert plain.for_graph(5_000_000, timed=True).transitions_reach == 20
    assert plain.for_graph(10**9, timed=True).transitions_reach == 10
    assert plain.for_graph(100, timed=False) == plain.without_time()


def test_with_ages_a_new_users_scores_are_the_formula_and_the_shares_sum_to_them() -> None:
    made = walks()
    settings = Hyperparameters(recency=1.0, vectors=6, dim=4, epochs=3, negatives=8).usual()
    embeddings = blend(made, fit(made, settings, quiet), settings)
    users = torch.arange(made.n_users)
    nobody = torch.full_like(users, -1)
    edges = own(made, users)
    assert edges.ages is not None
    assert edges.ages.max() > 5
    scores = embeddings.score(nobody, edges).numpy()
    every = torch.arange(made.n_items).expand(made.n_users, -1)
    shares = embeddings.contributions(nobody, edges, every).numpy()

    names = ("incoming", "outgoing", "neighbors", "similarities")
    incoming, outgoing, columns, values = (embeddings.tensors[n].double().numpy() for n in names)
    near = np.zeros((made.n_items, made.n_items))
    np.add.at(near, (np.arange(made.n_items)[:, None], columns.astype(int)), values)
    low, low_to = incoming[:, : embeddings.vectors], outgoing[:, : embeddings.vectors]
    learned, learned_to = incoming[:, embeddings.vectors :], outgoing[:, embeddings.vectors :]
    for user, (begin, end) in enumerate(zip(edges.starts[:-1], edges.starts[1:], strict=True)):
        strengths = edges.strengths[begin:end].double().numpy()
        faded = strengths / (1.0 + edges.ages[begin:end].numpy())
        faded *= strengths.sum() / max(faded.sum(), 1e-18)
        state, expected = np.zeros(learned.shape[1]), np.zeros(made.n_items)
        for item, strength in zip(edges.items[begin:end].tolist(), faded, strict=True):
            expected += strength / strengths.sum() * (near[item] + low_to @ low[item])
            state += strength * learned[item]
        expected += learned_to @ (state / max(float(np.linalg.norm(state)), 1e-18))
        np.testing.assert_allclose(scores[user], expected, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(shares[begin:end].sum(0), expected, rtol=1e-5, atol=2e-6)
