"""Lists made from a snapshot: ranked, explained, without what the user has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from consumer.events import Event
from serving.fold_in import Recommender, without
from serving.publish import publish
from serving.store import Recommendations, Store
from serving.topk import topk
from serving.user_edges import Edge, UserEdges
from tests.graphs import blocks, pairs
from tests.graphs import store as store_of
from trainer.choose import PRIORS
from trainer.embeddings import Own
from trainer.fit import fit
from trainer.graph import InteractionGraph
from trainer.hyperparameters import Hyperparameters
from trainer.snapshots import Manifest, Snapshot
from trainer.weights import Weighing

POPULAR = Recommendations(["p", "q", "r"], [3.0, 2.0, 1.0], [], "v", "popular", 1, 1)


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    return blocks()


@pytest.fixture(scope="module")
def snapshot(graph: InteractionGraph) -> Snapshot:
    settings = Hyperparameters(dim=16, epochs=40, vectors=4).filled(PRIORS)
    fitted = fit(graph, settings)
    embeddings = fitted.embeddings
    manifest = Manifest(
        "v1", embeddings.model, embeddings.layers, embeddings.cosine, 7, graph.n_users,
        graph.n_items, len(graph), 1, {}, {}, {"recall@20": 0.5, "ndcg@20": 0.25}, {},
    )  # fmt: skip
    return Snapshot(manifest, embeddings, graph.user_ids.values, graph.item_ids.values)


@pytest.fixture(scope="module")
def recommender(snapshot: Snapshot) -> Recommender:
    return Recommender(snapshot, torch.device("cpu"), 4)


@pytest.fixture
def store(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(redis_url, request.node.name)
    yield made
    made.close()


def test_topk_is_the_sorted_scores_without_the_seen_items() -> None:
    every = torch.rand(3, 9, generator=torch.Generator().manual_seed(0))
    starts, seen = torch.tensor([0, 2, 2, 3]), torch.tensor([8, 1, 4])
    scores, items = topk(every.clone(), starts, seen, 6)
    for user, own in enumerate([{8, 1}, set(), {4}]):
        expected = sorted(set(range(9)) - own, key=lambda item: -float(every[user, item]))[:6]
        assert items[user].tolist() == expected
        assert scores[user].tolist() == every[user, expected].tolist()


def test_lists_are_the_best_items_of_the_users_block_that_it_does_not_have(
    recommender: Recommender, graph: InteractionGraph, tmp_path: Path
) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store_of(tmp_path, pairs(graph)))
    made = recommender.lists([(u, edges.items(u)) for u in edges.users()], "model", POPULAR)
    assert len(made) == 120
    for user, found in made:
        own = edges.items(user).keys()
        assert len(found.items) == len(found.scores) == len(found.because) == 4
        assert found.scores == sorted(found.scores, reverse=True)
        assert not own & set(found.items)
        assert own >= set(found.because)
        assert all(item.split("-")[0] == user.split("-")[0] for item in found.items)


def test_because_names_the_own_item_with_the_largest_share_of_the_score(
    snapshot: Snapshot, recommender: Recommender
) -> None:
    number = {item: n for n, item in enumerate(recommender.item_ids)}
    own = {"0-1": Edge(5, 1.0), "0-2": Edge(4, 3.0), "3-5": Edge(3, 1.0)}
    [(_, found)] = recommender.lists([("new", own)], "live", POPULAR)
    strengths = torch.tensor([edge.weight for edge in own.values()])
    items = torch.tensor([number[item] for item in own])
    whole = snapshot.embeddings.score(
        torch.tensor([-1]), Own(torch.tensor([0, 3]), items, strengths)
    )[0]
    for item, score, because in zip(found.items, found.scores, found.because, strict=True):
        assert score == pytest.approx(float(whole[number[item]]), abs=1e-5)
        assert because.startswith("0-")  # what is recommended is of this block
    assert found.event_at == 5
    assert found.source == "live"


def test_a_user_without_a_known_item_gets_the_popular_list_without_what_it_has(
    recommender: Recommender,
) -> None:
    [(_, found)] = recommender.lists(
        [("new", {"q": Edge(9, 1.0), "unheard of": Edge(8, 1.0)})], "live", POPULAR
    )
    assert (found.items, found.scores, found.source) == (["p", "r"], [3.0, 1.0], "popular")
    assert found.event_at == 9
    assert without(POPULAR, {}, 2, 0, 0).items == ["p", "q"]


def test_neighbours_are_of_the_items_own_block_and_never_itself(recommender: Recommender) -> None:
    for item, found in recommender.neighbors(0, len(recommender.item_ids)):
        assert item not in found.items
        assert {other.split("-")[0] for other in found.items} == {item.split("-")[0]}


def test_publishing_writes_users_neighbours_and_the_model_last(
    store: Store, recommender: Recommender
) -> None:
    edges = UserEdges(Weighing())
    for partition, user in enumerate(("0-1", "stranger")):
        edges.apply(Event(user, "0-3", 1.0, 12, "view"), partition, 0)
    written = publish(recommender, edges, POPULAR, store)
    assert next(written) == 2
    assert store.model() == {}
    list(written)
    for user in ("0-1", "stranger"):
        found = store.user(user)
        assert found is not None
        assert (found.source, found.model, found.event_at) == ("model", "v1", 12)
        assert "0-3" not in found.items
    assert store.neighbors("2-2") is not None
    model = store.model()
    assert (model["version"], model["ndcg@20"], model["users"]) == ("v1", "0.25", "120")
    assert model.keys() == {
        "version", "trained_at", "users", "items", "edges", "recall@20", "ndcg@20"
    }  # fmt: skip
