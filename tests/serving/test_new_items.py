"""The item side of fold-in, on a planted structure and on items that the model already has."""

from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from serving.items.likers import FEWEST
from serving.items.new_items import NewItems
from serving.items.served_model import ServedModel
from serving.lists.recommender import Recommender
from tests.graphs import blocks, pairs, store
from tests.serving.test_serving import found_lists
from trainer.embedding.edges import Own, own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.item_fold_in import Folded, fold_in
from trainer.fit.fit import fit_all
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

SETTINGS = Hyperparameters(dim=16, epochs=40, vectors=30, learned_order=0.0).usual()


def folded_again(
    made: InteractionGraph, embeddings: Embeddings, item: int, pair_power: float = 1.0
) -> Folded:
    """The tables of an item that the model has, from its edges alone."""
    users = np.unique(made.users[made.items == item]).astype(np.int64)
    edges = own(made, torch.from_numpy(users))
    seen = edges.items != item
    before = torch.cat([torch.zeros(1, dtype=torch.int64), seen.cumsum(0)])
    assert edges.ages is not None
    others = Own(before[edges.starts], edges.items[seen], edges.strengths[seen], edges.ages[seen])
    touched = Own(
        torch.tensor([0, len(users)]),
        torch.arange(len(users)),
        edges.strengths[~seen],
        edges.ages[~seen],
    )
    settings = {name: value for name, value in asdict(SETTINGS).items() if value is not None}
    settings["neighbors_pair_power"] = pair_power
    numbers = torch.from_numpy(users)
    return fold_in(embeddings, settings, numbers, others, edges.sums(), touched)


@pytest.fixture(scope="module")
def made() -> InteractionGraph:
    return blocks()


@pytest.fixture(scope="module")
def embeddings(made: InteractionGraph) -> Embeddings:
    return fit_all(made, SETTINGS, quiet)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(("item", "pair_power"), [(0, 1.0), (17, 0.5), (40, 0.7)])
def test_an_item_of_the_model_gets_its_own_row_of_neighbours_and_transitions_again(
    item: int, pair_power: float, timed: bool
) -> None:
    made = blocks()
    if timed:
        made.timestamps = np.random.default_rng(5).permutation(len(made)).astype(np.int64)
    settings = replace(
        SETTINGS, low_pass_weight=0.0, learned_weight=0.0, neighbors_pair_power=pair_power
    )
    embeddings = fit_all(made, settings, quiet)
    assert bool(embeddings.tensors["scales"][3]) == timed
    folded = folded_again(made, embeddings, item, pair_power)
    assert folded.neighbors is not None
    assert folded.similarities is not None
    assert folded.near is not None
    size = embeddings.n_items

    def whole(columns: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(size).index_add_(0, columns.long(), values)

    rows = embeddings.tensors["neighbors"], embeddings.tensors["similarities"]
    again = whole(folded.neighbors[0], folded.similarities[0])
    torch.testing.assert_close(again, whole(rows[0][item], rows[1][item]))
    column = torch.stack([whole(*row)[item] for row in zip(*rows, strict=True)])
    torch.testing.assert_close(folded.near[0], column)


@pytest.mark.parametrize("item", [0, 17, 40])
def test_an_item_of_the_model_gets_its_own_low_pass_row_again_in_the_strong_directions(
    made: InteractionGraph, embeddings: Embeddings, item: int
) -> None:
    folded = folded_again(made, embeddings, item)
    users = made.users[made.items == item]
    twice = 2 * (SETTINGS.low_pass_normalization or 0)
    itself = float((made.user_strengths[users] ** -twice).sum() / len(users) ** twice)
    strong = (embeddings.tensors["squares"] > 2 * itself).nonzero()[:, 0]
    assert len(strong) >= 4
    torch.testing.assert_close(
        folded.outgoing[0, strong], embeddings.outgoing[item, strong], rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        folded.incoming[0, strong], embeddings.tensors["incoming"][item, strong],
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_the_learned_row_of_an_item_points_where_its_users_do(
    made: InteractionGraph, embeddings: Embeddings
) -> None:
    for item in (0, 17, 40):
        folded = folded_again(made, embeddings, item)
        learned = folded.outgoing[:, embeddings.vectors :]
        known = embeddings.outgoing[item : item + 1, embeddings.vectors :]
        assert torch.cosine_similarity(learned, known) > 0.9


@pytest.mark.parametrize("part", ["neighbors", "low_pass", "learned"])
def test_a_model_of_one_part_alone_takes_up_an_item_too(made: InteractionGraph, part: str) -> None:
    settings = replace(
        SETTINGS,
        neighbors_weight=float(part == "neighbors"),
        low_pass_weight=float(part == "low_pass"),
        learned_weight=float(part == "learned"),
    )
    alone = fit_all(made, settings, quiet)
    folded = folded_again(made, alone, 17)
    assert folded.outgoing.shape == (1, alone.outgoing.shape[1])
    assert (folded.near is not None) == (part == "neighbors")


def recommender_of(made: InteractionGraph, embeddings: Embeddings) -> Recommender:
    settings = asdict(SETTINGS)
    manifest = Manifest(
        "v1", "blend", 3, True, 7, made.n_users, made.n_items, len(made), 1, {}, settings, {}, {}
    )
    snapshot = Snapshot(manifest, embeddings, made.user_ids.values, made.item_ids.values)
    return Recommender(ServedModel(snapshot, torch.device("cpu")), 4)


def test_a_new_item_touched_by_users_of_one_taste_is_recommended_to_that_taste_alone(
    made: InteractionGraph, embeddings: Embeddings, tmp_path: Path
) -> None:
    recommender = recommender_of(made, embeddings)
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, pairs(made)))
    found = NewItems(recommender.model, edges)
    for offset in range(20):
        event = Event(f"2-{offset}", "brand new", 1.0, offset, "view")
        edges.apply(event, 1, Position(offset, 0))
        found.note(event)
        folded = found.fold()
        assert folded == ([made.n_items] if offset + 1 >= FEWEST else [])
    recommender.renew([made.n_items])
    shown = found_lists(recommender, edges.users(), edges)
    with_it = {u for u, each in zip(edges.users(), shown, strict=True) if "brand new" in each.items}
    assert with_it == {f"2-{n}" for n in range(20, 30)}
    [(new, similar)] = recommender.neighbors([made.n_items])
    assert new == ["brand new"]
    assert b'"0-' not in similar[0]


def test_an_item_without_strength_in_the_model_weighs_nothing_in_a_new_ones_tables(
    made: InteractionGraph, embeddings: Embeddings
) -> None:
    strengths = embeddings.tensors["strengths"].clone()
    strengths[made.items[0]] = 0  # all that was left of it was taken back
    weak = replace(embeddings, tensors=embeddings.tensors | {"strengths": strengths})
    folded = folded_again(made, weak, int(made.items[-1]))
    usual = folded_again(made, embeddings, int(made.items[-1]))
    assert folded.near is not None
    assert folded.near[0, made.items[0]] == 0
    assert folded.outgoing.abs().max() <= 2 * usual.outgoing.abs().max()


def test_an_item_of_the_store_that_the_model_has_not_seen_is_found(
    made: InteractionGraph, embeddings: Embeddings, tmp_path: Path
) -> None:
    recommender = recommender_of(made, embeddings)
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("0-1", "0-2"), *((f"1-{n}", "since") for n in range(FEWEST))]))
    assert NewItems(recommender.model, edges).fold() == [made.n_items]


def test_the_most_touched_new_items_come_first_and_none_that_there_is_no_room_for(
    made: InteractionGraph,
    embeddings: Embeddings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.items.served_model.ROOM", 2)
    monkeypatch.setattr("serving.items.new_items.AT_ONCE", 1)
    recommender = recommender_of(made, embeddings)
    edges = UserEdges(Weighing())
    rows = [
        (f"2-{n}", item) for item, users in (("c", 3), ("a", 9), ("b", 5)) for n in range(users)
    ]
    edges.grow(store(tmp_path, [*pairs(made), *rows]))
    found = NewItems(recommender.model, edges)
    assert [found.fold() for _ in range(4)] == [[made.n_items], [made.n_items + 1], [], []]
    assert recommender.model.item_ids[-2:] == ["a", "b"]


def test_users_who_dislike_a_new_item_do_not_make_it_recommended_nor_push_out_who_likes_it(
    made: InteractionGraph, embeddings: Embeddings, tmp_path: Path
) -> None:
    recommender = recommender_of(made, embeddings)
    edges = UserEdges(Weighing())
    stored = [(f"3-{n}", "brand new", -1.0) for n in range(30)]
    edges.grow(store(tmp_path, [*pairs(made), *stored]))
    found = NewItems(recommender.model, edges)
    offsets = count()
    assert found.fold() == []

    def touch(user: str, weight: float) -> list[int]:
        event = Event(user, "brand new", weight, 0, "view")
        edges.apply(event, 1, Position(next(offsets), 0))
        found.note(event)
        return found.fold()

    assert touch("2-0", 1.0) == touch("2-1", 1.0) == []
    for n in range(150):
        assert touch(f"stranger {n}", -1.0) == []
    assert touch("2-1", -1.0) == touch("2-2", 1.0) == []  # 2-1 has changed its mind
    for n in range(3, 20):
        assert touch(f"2-{n}", 1.0) == [made.n_items]
    recommender.renew([made.n_items])
    shown = found_lists(recommender, edges.users(), edges)
    with_it = {u for u, each in zip(edges.users(), shown, strict=True) if "brand new" in each.items}
    assert with_it == {f"2-{n}" for n in range(20, 30)}


def test_a_new_item_is_placed_anew_by_more_users_and_not_by_repeated_events_of_the_same(
    made: InteractionGraph, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.items.likers.MOST_USERS", 6)
    edges = UserEdges(Weighing())
    found = NewItems(recommender_of(made, embeddings).model, edges)
    offsets = count()

    def touch(user: int) -> list[int]:
        event = Event(f"2-{user}", "brand new", 1.0, 0, "view")
        edges.apply(event, 1, Position(next(offsets), 0))
        found.note(event)
        return found.fold()

    folded = [touch(user) for user in (0, 1, 2, 2, 0, 3, 3, 4, 5)]
    assert [bool(each) for each in folded] == [
        False,
        False,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]
    assert not any(touch(n % 20) for n in range(100))  # users enough have placed it
    found.find()  # a partition was gained
    assert found.fold() == []


def test_however_many_new_items_come_while_no_model_does_so_many_touches_are_remembered(
    made: InteractionGraph, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.items.likers.MOST_LIKES", 200)
    recommender = recommender_of(made, embeddings)
    edges = UserEdges(Weighing())
    found = NewItems(recommender.model, edges)
    offsets = count()

    def touch(user: str, item: str) -> None:
        event = Event(user, item, 1.0, 0, "view")
        edges.apply(event, 1, Position(next(offsets), 0))
        found.note(event)

    for n in range(3):
        touch(f"2-{n}", "first")
    assert found.fold() == [made.n_items]
    for n in range(3_000):
        touch(f"2-{n % 30}", f"once {n}")
        assert sum(map(len, found._likers.of.values())) == found._likers._likes <= 200
    for n in range(3, 6):
        touch(f"2-{n}", "last")
    assert found.fold() == [made.n_items + 1]  # what comes now is still taken up
    touch("2-9", "first")
    assert found.fold() == [made.n_items]  # and what is recommended is placed anew by all
    assert len(found._likers.of["first"]) == 4


def test_a_replaced_edge_store_with_as_many_items_in_another_order_gives_the_right_items(
    made: InteractionGraph, embeddings: Embeddings, tmp_path: Path
) -> None:
    model = recommender_of(made, embeddings).model
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path / "before", [("u", "0-1"), ("v", "0-2"), ("v", "0-3")]))
    model.block(["u"], edges)
    edges.read_anew(store(tmp_path / "after", [("v", "0-3"), ("v", "0-2"), ("u", "0-1")]))
    own_items = model.block(["u"], edges).own.items.tolist()
    assert [model.item_ids[number] for number in own_items] == ["0-1"]
