"""The learned part that predicts next items, on graphs where what comes next is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.graphs import graph
from trainer.embedding.edges import Own, own
from trainer.embedding.embeddings import Embeddings
from trainer.graph.interactions import InteractionGraph
from trainer.model import next_item
from trainer.model.blend import blend, fit, state
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet
from trainer.model.sequences import Sequences

ALONE = Hyperparameters(
    dim=16, epochs=40, negatives=64, neighbors_weight=0.0, low_pass_weight=0.0,
    transitions_weight=0.0, learned_power=0.0,
).usual()  # fmt: skip
TIMED = 20


def chain(users: int = 120, items: int = TIMED, length: int = 8) -> InteractionGraph:
    """Every user walks round the items in one direction, from a random item on."""
    rng = np.random.default_rng(0)
    begins = rng.integers(0, items, users)
    return graph(
        [
            (f"u{user}", f"i{(begin + step) % items}", 1.0, step + 1)
            for user, begin in enumerate(begins)
            for step in range(length)
        ]
    )


def learned(made: InteractionGraph, settings: Hyperparameters = ALONE) -> Embeddings:
    return blend(made, fit(made, settings), settings)


def of_items(*items: int) -> Own:
    """One user with these items, the newest last."""
    n = len(items)
    ages = torch.arange(n - 1, -1, -1)
    return Own(torch.tensor([0, n]), torch.tensor(items), torch.ones(n), ages)


def test_on_a_chain_the_next_item_is_the_first_and_the_one_before_is_not() -> None:
    made = chain()
    model = learned(made)
    numbers = {name: n for n, name in enumerate(made.item_ids.values.to_pylist())}
    for at in range(TIMED):
        walked = [numbers[f"i{(at + step) % TIMED}"] for step in range(3)]
        scores = model.score(torch.tensor([-1]), of_items(*walked))[0]
        after, before = (numbers[f"i{(at + step) % TIMED}"] for step in (3, -1))
        scores[walked] = -torch.inf
        assert scores.argmax() == after
        assert scores[after] > scores[before] + 0.1 * scores[torch.isfinite(scores)].std()


def test_a_user_whom_the_model_has_not_seen_has_the_list_of_one_with_the_same_edges() -> None:
    made = chain()
    model = learned(made)
    edges = own(made, torch.tensor([7]))
    known, new = (model.score(torch.tensor([user]), edges) for user in (7, -1))
    torch.testing.assert_close(known, new, rtol=0, atol=0)


def test_what_each_edge_brings_sums_up_to_the_score() -> None:
    made = chain()
    model = learned(made)
    users = torch.arange(10)
    edges = own(made, users)
    best = model.score(users, edges).topk(5).indices
    shares = model.contributions(users, edges, best)
    sums = torch.zeros(10, 5).index_add_(0, edges.rows(), shares)
    torch.testing.assert_close(sums, model.score(users, edges).gather(1, best))


def test_items_of_users_whose_order_says_nothing_are_learned_too() -> None:
    """Half of the users have one time for all edges, and items that nobody else has."""
    rng = np.random.default_rng(1)
    blocks = [
        (f"b{user}", f"{user % 2}-{item}", 1.0, 1)
        for user in range(80)
        for item in rng.choice(10, 6, replace=False)
    ]
    walks = [(f"w{user}", f"w{step}", 1.0, step + 1) for user in range(40) for step in range(5)]
    made = graph(blocks + walks)
    model = learned(made)
    names = made.item_ids.values.to_pylist()
    numbers = [number for number, name in enumerate(names) if name.startswith("0-")]
    scores = model.score(torch.tensor([-1]), of_items(*numbers[:4]))[0]
    scores[numbers[:4]] = -torch.inf
    assert set(scores.topk(6).indices.tolist()) == set(numbers[4:])


def test_a_training_goes_on_from_the_tables_and_gives_new_items_rows() -> None:
    made = chain()
    first = fit(made, ALONE)
    tables = state(first, ALONE)
    assert tables.keys() == {"incoming", "outgoing"}
    tables["incoming"][3] = tables["outgoing"][3] = 0.0  # as of an item that is new
    steps: list[int] = []
    second = next_item.fit(made, ALONE, lambda *told: steps.append(told[2]), tables, share=40)
    assert set(steps) == {2}  # of 80
    old = torch.arange(made.n_items) != 3
    cosines = torch.cosine_similarity(second.outgoing, first["learned"].outgoing)  # type: ignore[attr-defined]
    assert cosines[old].min() > 0.9
    assert second.outgoing[3].norm() > 0.1


def test_where_nobody_liked_a_second_item_a_training_goes_on_without_a_step() -> None:
    made = graph([("u", "a", 1.0, 1), ("u", "b", -1.0, 2), ("v", "a", 1.0, 1)])
    tables = state(fit(made, ALONE), ALONE)
    second = next_item.fit(made, ALONE, quiet, tables, share=10)
    assert torch.equal(second.outgoing, tables["outgoing"])
    assert not second.incoming.any()
    assert not learned(made).score(torch.tensor([0]), own(made, torch.tensor([0]))).any()


def test_an_item_that_no_user_took_before_another_brings_nothing() -> None:
    walks = [(f"w{user}", f"i{step}", 1.0, step + 1) for user in range(30) for step in range(5)]
    made = graph([*walks, *((f"w{user}", "last", 1.0, 9) for user in range(10))])
    last = made.item_ids.values.to_pylist().index("last")
    model = learned(made)
    assert not model.tensors["incoming"][last].any()
    assert not model.score(torch.tensor([-1]), of_items(last)).any()
    assert model.outgoing[last].norm() > 0


def test_no_user_has_a_vector_of_its_own() -> None:
    made = chain()
    model = learned(made)
    assert model.tensors["base"].shape == (made.n_users, 0)
    assert (model.dim, model.vectors) == (ALONE.dim, 0)


def test_a_pass_over_a_large_graph_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_item, "LONGEST", 1)
    steps: list[int] = []
    for settings in (replace(ALONE, epochs=None), replace(ALONE, epochs=3)):
        next_item.fit(chain(), settings, lambda *told: steps.append(told[2]))
    assert set(steps) == {10, 3}


def test_a_new_item_begins_beside_its_neighbours_so_that_one_step_leaves_it_right() -> None:
    made = chain()
    new = made.item_ids.values.to_pylist().index("i7")
    tables = state(fit(made.subset(made.items != new), ALONE), ALONE)
    tables["incoming"][new] = tables["outgoing"][new] = 0.0
    model = next_item.fit(made, ALONE, quiet, tables, share=1_000).embeddings(made, ALONE)
    numbers = {name: n for n, name in enumerate(made.item_ids.values.to_pylist())}
    for walked, after in (((4, 5, 6), 7), ((7,), 8)):
        own_items = [numbers[f"i{each}"] for each in walked]
        scores = model.score(torch.tensor([-1]), of_items(*own_items))[0]
        scores[own_items] = -torch.inf
        assert scores.argmax() == numbers[f"i{after}"]


def test_an_item_that_no_step_had_in_a_state_brings_what_came_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(next_item, "FEWEST", 1)
    monkeypatch.setattr(next_item, "MOST", 1)
    monkeypatch.setattr(next_item, "LONGEST", 1)
    made = graph(
        [(f"u{n}", f"{side}{n}", 1.0, 1 + (side == "b")) for n in range(9) for side in "ab"]
    )
    fitted = next_item.fit(made, replace(ALONE, epochs=1), quiet)
    names = made.item_ids.values.to_pylist()
    first, second = ([names.index(f"{side}{n}") for n in range(9)] for side in "ab")
    cosines = torch.cosine_similarity(fitted.incoming[first], fitted.outgoing[second])
    assert (cosines > 0.999).sum() == 8  # all but the one of the step


def test_edges_without_strength_keep_their_place_as_they_do_in_the_ages_of_a_list() -> None:
    events = [("u", "a", 1.0, 1), ("u", "b", -1.0, 2), ("u", "c", 2.0, 3), ("v", "a", 1.0, 1),
              ("v", "b", -1.0, 2)]  # fmt: skip
    made = graph([*events, ("u", "d", 1.0, 4)])
    edges = Sequences.of(made, 1.0)
    a, b, c, d = (made.item_ids.values.to_pylist().index(name) for name in "abcd")
    assert edges.wanted(edges.later).tolist() == [c, d]
    items, weights = edges.before(edges.later)
    assert items[1, :3].tolist() == [c, b, a]
    torch.testing.assert_close(weights[1, :4], torch.tensor([2.0, 0.0, 1 / 3, 0.0]))
    items, chances = edges.after(torch.tensor([0]))
    assert items[0, :2].tolist() == [c, d]
    torch.testing.assert_close(chances[0, :3], torch.tensor([0.5, 0.25, 0.0]))
    without_d = made.subset(made.items != d)
    ages = without_d.ages[without_d.users == 0]  # the ages that u is scored with
    faded = np.sort(without_d.strengths[without_d.users == 0] / (1.0 + ages))
    np.testing.assert_allclose(faded, np.sort(weights[1, :3].numpy()), rtol=1e-6)


def test_an_item_without_edges_scores_nothing() -> None:
    made = chain()
    kept = made.subset(made.items != 5)
    assert kept.n_items == made.n_items
    scores = learned(kept).score(torch.arange(10), own(kept, torch.arange(10)))
    assert not scores[:, 5].any()


def test_two_trainings_with_one_seed_are_equal() -> None:
    made = chain()
    first, second = (next_item.fit(made, ALONE, quiet) for _ in range(2))
    assert torch.equal(first.outgoing, second.outgoing)
