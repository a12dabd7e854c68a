"""Lists made from a snapshot: ranked, explained, without what the user has."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from serving.items.served_model import ServedModel
from serving.lists.encoding import Lists, encode, quoted
from serving.lists.popular_list import PopularList
from serving.lists.recommender import Recommender
from serving.lists.topk import FirstPass, best, topk
from serving.loop.all_lists import AllLists
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from tests.graphs import blocks, pairs
from tests.graphs import graph as graph_of
from tests.graphs import store as store_of
from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own
from trainer.embedding.edges import own as own_of
from trainer.embedding.embeddings import Embeddings
from trainer.fit.fit import fit, fit_all
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

POPULAR = PopularList(["p", "q", "r"], np.array([3, 2, 1], np.float32), "v", 1)


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    return blocks()


@pytest.fixture(scope="module")
def snapshot(graph: InteractionGraph) -> Snapshot:
    settings = Hyperparameters(dim=16, epochs=40, vectors=4, learned_order=0.0).usual()
    return snapshot_of(graph, fit(graph, settings).embeddings)


def snapshot_of(graph: InteractionGraph, embeddings: Embeddings) -> Snapshot:
    manifest = Manifest(
        "v1", embeddings.model, embeddings.layers, embeddings.cosine, 7, graph.n_users,
        graph.n_items, len(graph), 1, {}, {}, {"recall@20": 0.5, "ndcg@20": 0.25}, {},
    )  # fmt: skip
    return Snapshot(manifest, embeddings, graph.user_ids.values, graph.item_ids.values)


@pytest.fixture(scope="module")
def recommender(snapshot: Snapshot) -> Recommender:
    return recommender_of(snapshot, 4)


def recommender_of(snapshot: Snapshot, k: int) -> Recommender:
    return Recommender(ServedModel(snapshot, torch.device("cpu")), k)


@pytest.fixture
def store(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(redis_url, request.node.name)
    yield made
    made.close()


def edges_of(*events: tuple[str, str, int, float]) -> UserEdges:
    """Edges (user, item, milliseconds, interaction) that only the log has told of."""
    made = UserEdges(Weighing())
    for offset, (user, item, at, interaction) in enumerate(events):
        made.apply(Event(user, item, interaction, at, "view"), 0, Position(offset, 0))
    return made


def found_lists(
    recommender: Recommender, users: list[str], edges: UserEdges
) -> list[Recommendations]:
    """What Redis would be given for the users."""
    made = list(recommender.lists(users, edges, ["live"] * len(users), POPULAR))
    assert [user for ids, _ in made for user in ids] == users
    return [msgspec.json.decode(v, type=Recommendations) for _, values in made for v in values]


def test_a_user_whose_events_come_anew_has_the_scores_of_a_training_ages_included() -> None:
    """The items are frozen: the user was in the training, and comes again by another name."""
    rng = np.random.default_rng(4)
    rows = [
        (f"u{user}", f"i{item}", float(rng.integers(-1, 5)), int(rng.integers(1, 10**6)))
        for user in range(12)
        for item in rng.choice(15, rng.integers(3, 12), replace=False)
    ]
    made = graph_of(rows)
    settings = Hyperparameters(recency=1.0, vectors=6, dim=4, epochs=3, negatives=8).usual()
    embeddings = fit_all(made, settings, quiet)
    model = ServedModel(snapshot_of(made, embeddings), torch.device("cpu"))
    # In float64, as float32 rounds more than is allowed here.
    doubles = {n: t.double() for n, t in embeddings.tensors.items() if t.is_floating_point()}
    exact = replace(embeddings, tensors={**embeddings.tensors, **doubles})
    for number, user in enumerate(made.user_ids.values.to_pylist()):
        events = [(f"new {user}", item, at, w) for name, item, w, at in rows if name == user]
        block = model.block([f"new {user}"], edges_of(*events))
        trained = own_of(made, torch.tensor([number]))
        assert block.numbers.tolist() == [-1]
        assert block.own.ages is not None
        assert block.own.ages.max() == len(events) - 1
        scores = [
            exact.score(torch.tensor([known]), of._replace(strengths=of.strengths.double()))
            for known, of in ((-1, block.own), (number, trained))
        ]
        torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_items", [9, 64, 500])
def test_topk_is_the_sorted_scores_without_the_seen_items(n_items: int) -> None:
    every = torch.rand(3, n_items, generator=torch.Generator().manual_seed(0))
    seen = Own(torch.tensor([0, 2, 2, 3]), torch.tensor([8, 1, 4]), torch.ones(3))
    scores, items = topk(every.clone(), seen, 6)
    for user, own in enumerate([{8, 1}, set(), {4}]):
        left = sorted(set(range(n_items)) - own, key=lambda item: -float(every[user, item]))[:6]
        assert items[user].tolist() == left
        assert scores[user].tolist() == every[user, left].tolist()


@pytest.mark.parametrize("halves", [True, False])
def test_a_wide_model_ranks_in_two_passes_as_in_one(
    halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = embeddings(fading=0.93)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": halves})
    starts, ages = torch.tensor([0, 3, 4]), torch.tensor([0, 2, 1, 0])
    own = Own(starts, torch.tensor([5, 70, 200, 8]), torch.tensor([1.0, 2, 1, 1]), ages)
    users = torch.tensor([2, -1])
    first = FirstPass.of(wide, 20)
    assert first
    assert 0 < first.leading < wide.vectors
    scores, items = best(wide, first, users, own, 20)
    exact, all_items = topk(wide.score(users, own), own, 20)
    assert items.tolist() == all_items.tolist()
    torch.testing.assert_close(scores, exact)


def test_who_has_nothing_that_is_learned_is_ranked_by_all_columns() -> None:
    wide = embeddings(fading=0.93)
    wide.tensors["incoming"][:300, wide.vectors :] = 0
    own = Own(torch.tensor([0, 1, 1, 3, 4]), torch.tensor([5, 70, 400, 8]), torch.ones(4))
    users = torch.tensor([-1, -1, -1, -1])
    first = FirstPass(wide.outgoing[:, wide.vectors :], 0, 2)
    blind = first.is_blind(wide, wide.user_vectors(users, own))
    assert blind.tolist() == [True, True, False, True]
    scores, items = best(wide, first, users, own, 20)
    exact, all_items = topk(wide.score(users, own), own, 20)
    for user in (0, 3):
        assert items[user].tolist() == all_items[user].tolist()
        torch.testing.assert_close(scores[user], exact[user])
    assert items[2].tolist() != all_items[2].tolist()  # what the first pass alone finds


def test_a_model_whose_columns_all_weigh_alike_is_ranked_by_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alike = embeddings(fading=1.0)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert FirstPass.of(alike, 20) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    first = FirstPass.of(alike, 20)
    assert first
    assert first.leading == alike.vectors
    assert first.table.dtype == torch.bfloat16


def embeddings(fading: float) -> Embeddings:
    """Of 216 vectors, each of so much the weight of the one before, and 8 learned dimensions."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.cat([fading ** torch.arange(216), torch.ones(8)])

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "base": random(4, 8),
        "incoming": random(600, len(weights)) * weights,
        "outgoing": random(600, len(weights)),
        "neighbors": torch.randint(600, (600, 5), dtype=torch.int32, generator=generator),
        "similarities": random(600, 5).abs(),
        "strengths": torch.ones(600),
    }
    return BlendEmbeddings("blend", 3, True, tensors, recency=0.75)


def test_lists_are_the_best_items_of_the_users_block_that_it_does_not_have(
    recommender: Recommender, graph: InteractionGraph, tmp_path: Path
) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store_of(tmp_path, pairs(graph)))
    users = edges.users()
    assert len(users) == 120
    for user, found in zip(users, found_lists(recommender, users, edges), strict=True):
        own = edges.items(user).keys()
        assert len(found.items) == len(found.scores) == len(found.because) == 4
        assert found.scores == sorted(found.scores, reverse=True)
        assert not own & set(found.items)
        assert own >= set(found.because)
        assert all(item.split("-")[0] == user.split("-")[0] for item in found.items)


def test_similar_items_begin_with_what_users_take_next() -> None:
    """Users walk round a ring of items, so of the items on both sides one comes next."""
    ring = 12
    walks = [
        (f"u{user}", f"i{(user + step) % ring}", 1.0, 1_000 + step)
        for user in range(60)
        for step in range(6)
    ]
    made = graph_of(walks)
    embeddings = fit_all(made, Hyperparameters(vectors=4, dim=8).usual(), quiet)
    recommender = recommender_of(snapshot_of(made, embeddings), ring - 1)
    [similar] = recommender.neighbors(range(ring))
    for item, value in zip(similar.ids, similar.values, strict=True):
        items = msgspec.json.decode(value, type=Recommendations).items
        number = int(item[1:])
        after, before = (f"i{(number + step) % ring}" for step in (1, -1))
        assert items[0] == after
        assert before not in items[:2]


def test_because_names_the_own_item_with_the_largest_share_of_the_score(
    snapshot: Snapshot, recommender: Recommender
) -> None:
    number = {item: n for n, item in enumerate(recommender.model.item_ids)}
    own = {"0-1": 1.0, "0-2": 3.0, "3-5": 1.0}
    edges = edges_of(*(("new", item, 3, weight) for item, weight in own.items()))
    [found] = found_lists(recommender, ["new"], edges)
    items = torch.tensor([number[item] for item in own])
    alone = Own(torch.tensor([0, 3]), items, torch.tensor(list(own.values())))
    unknown = torch.tensor([-1])
    whole = snapshot.embeddings.score(unknown, alone)[0]
    recommended = torch.tensor([[number[item] for item in found.items]])
    shares = snapshot.embeddings.contributions(unknown, alone, recommended)
    for item, score, because, share in zip(
        found.items, found.scores, found.because, shares.T, strict=True
    ):
        assert score == pytest.approx(float(whole[number[item]]), abs=1e-5)
        assert score == pytest.approx(float(share.sum()), abs=1e-5)
        assert because == list(own)[int(share.argmax())]
        assert because.startswith("0-")  # what is recommended is of this block
    assert found.event_at == 3
    assert found.source == "live"


def test_what_a_user_dislikes_is_no_reason_for_a_recommendation(snapshot: Snapshot) -> None:
    whole = recommender_of(snapshot, 40)  # so long that bad items are in it
    disliked = [f"{block}-{item}" for block in (1, 2, 3) for item in range(4)]
    edges = edges_of(("new", "0-1", 3, 1.0), *(("new", item, 3, -1.0) for item in disliked))
    [found] = found_lists(whole, ["new"], edges)
    assert len(found.items) > 30
    assert set(found.because) == {"0-1"}


def test_what_nobody_likes_is_in_no_list(tmp_path: Path) -> None:
    rows = [*pairs(blocks()), *((f"0-{n}", "disliked", -1.0) for n in range(30))]
    graph = graph_of(rows)
    fitted = fit(graph, Hyperparameters(dim=16, epochs=40, vectors=4, learned_order=0.0).usual())
    recommender = recommender_of(snapshot_of(graph, fitted.embeddings), 60)
    edges = UserEdges(Weighing())
    edges.grow(store_of(tmp_path, rows))
    for found in found_lists(recommender, edges.users(), edges):
        assert len(found.items) == 48 - 7
        assert "disliked" not in found.items
    for _, parts in recommender.neighbors(range(graph.n_items)):
        assert all(b"disliked" not in value for value in parts)


def test_an_item_that_none_of_the_users_items_leads_to_is_in_no_list(
    graph: InteractionGraph,
) -> None:
    # Neighbours and transitions alone lead from item to item.
    given = Hyperparameters(vectors=4, low_pass_weight=0.0, learned_weight=0.0)
    settings = given.usual()
    whole = recommender_of(snapshot_of(graph, fit(graph, settings).embeddings), 40)
    [found] = found_lists(whole, ["new"], edges_of(("new", "0-1", 3, 1.0)))
    assert 0 < len(found.items) < 12  # of 48 items there are 12 in the block
    assert {item.split("-")[0] for item in found.items} == {"0"}
    assert all(score > 0 for score in found.scores)
    assert len(found.because) == len(found.items)


def test_an_item_that_everybody_dislikes_has_no_similar_items(tmp_path: Path) -> None:
    made = graph_of([*pairs(blocks()), *((f"0-{n}", "disliked", -1.0) for n in range(30))])
    fitted = fit(made, Hyperparameters(dim=16, epochs=40, vectors=4, learned_order=0.0).usual())
    recommender = recommender_of(snapshot_of(made, fitted.embeddings), 5)
    number = recommender.model.item_ids.index("disliked")
    [(ids, [value])] = recommender.neighbors([number])
    similar = msgspec.json.decode(value, type=Recommendations)
    assert list(ids) == ["disliked"]
    assert not similar.items
    assert not similar.scores
    popular = found_lists(recommender, ["new"], edges_of(("new", "disliked", 3, 1.0)))[0]
    assert (popular.items, popular.source) == (["p", "q", "r"], "popular")


def test_a_user_without_a_known_item_gets_the_popular_list_without_what_it_has(
    recommender: Recommender,
) -> None:
    edges = edges_of(("new", "q", 9, 1.0), ("new", "unheard of", 8, 1.0), ("other", "0-1", 7, 1.0))
    found, other = found_lists(recommender, ["new", "other"], edges)
    assert (found.items, found.scores, found.source) == (["p", "r"], [3.0, 1.0], "popular")
    assert found.event_at == 9
    assert other.source == "live"
    first = msgspec.json.decode(POPULAR.first(2), type=Recommendations)
    assert first == Recommendations(["p", "q"], [3.0, 2.0], [], "v", "popular", 1, 1)
    assert b'"items":[]' in PopularList().first(2)


def test_neighbours_are_of_the_items_own_block_and_never_itself(recommender: Recommender) -> None:
    parts = list(recommender.neighbors(range(len(recommender.model.item_ids))))
    assert [item for items, _ in parts for item in items] == recommender.model.item_ids
    for item, value in ((i, v) for part in parts for i, v in zip(*part, strict=True)):
        found = msgspec.json.decode(value, type=Recommendations)
        assert item not in found.items
        assert {other.split("-")[0] for other in found.items} == {item.split("-")[0]}


def test_a_value_is_the_json_of_its_row_with_any_ids() -> None:
    names = ['"', "\\", "\n", "ü", "\u2028", "plain"]
    rows = Lists(
        np.array([[5, 0, 1], [2, 3, 4]]),
        np.array([[2.5, 1e-6, -3.123456789], [1, 0.1, 0]], np.float32),
        np.array([[0, 0, 0], [1, 2, 3]]),
        np.array([2, 3]),
        np.array([0, 1_795_532_364_000]),
    )
    made = encode(rows, quoted(pa.array(names)), "v", ["model", "live"], 7)
    first, second = (msgspec.json.decode(each, type=Recommendations) for each in made)
    assert first == Recommendations(["plain", '"'], [2.5, 0.0], ['"', '"'], "v", "model", 0, 7)
    assert second.items == names[2:5]
    assert second.because == names[1:4]
    assert second.scores == [1.0, 0.1, 0.0]
    assert second.event_at == 1_795_532_364_000


def write_all(publish: AllLists, store: Store, *due: str) -> Iterator[float]:
    """Write block by block, the first with users who are due; yields the share that is written."""
    waiting = [list(due)]
    while block := publish.begin(POPULAR, lambda n: waiting.pop() if waiting else []):
        yield publish.progress
        block.write(store)
        publish.written()
    publish.end(store)


def test_users_who_are_due_are_written_with_the_blocks_of_a_publish(
    store: Store, recommender: Recommender
) -> None:
    users = sorted(recommender.model._users)
    edges = edges_of(*((user, "0-3", 12, 1.0) for user in [*users, "stranger"]))
    publish = AllLists(recommender, edges, {0}, 1, "edition")
    list(write_all(publish, store, "stranger", users[0], "forgotten"))
    found = {user: store.user(user) for user in [*users, "stranger", "forgotten"]}
    assert found.pop("forgotten") is None
    sources = {user: each and each.source for user, each in found.items()}
    assert (sources.pop("stranger"), sources.pop(users[0])) == ("live", "live")
    assert set(sources.values()) == {"model"}


def test_publishing_writes_users_neighbours_and_the_model_last(
    store: Store, recommender: Recommender
) -> None:
    edges = UserEdges(Weighing())
    for partition, user in enumerate(("0-1", "stranger")):
        edges.apply(Event(user, "0-3", 1.0, 12, "view"), partition, Position(0, 0))
    edges.apply(Event("another's", "0-3", 1.0, 12, "view"), 2, Position(0, 0))
    written = write_all(AllLists(recommender, edges, {0, 1}, 3, "edition"), store)
    assert next(written) == 0
    assert store.user("0-1") is None  # it is only begun
    assert 0 < next(written) < 1
    assert store.user("0-1")
    assert not store.model()
    assert not store.published({0, 1})
    list(written)
    assert store.user("another's") is None
    assert store.published({0, 1, 2}) == {0: "edition", 1: "edition"}
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


def test_a_publish_that_failed_goes_on_at_the_block_that_failed(
    store: Store, recommender: Recommender
) -> None:
    edges = edges_of(*((f"u{n}", "0-3", 12, 1.0) for n in range(300)))
    publish = AllLists(recommender, edges, {0}, 1, "edition")
    blocks = [publish.begin(POPULAR, lambda n: []) for _ in range(3)]  # none of them is written
    assert {tuple(block.users) for block in blocks if block} == {tuple(f"u{n}" for n in range(128))}
    list(write_all(publish, store))
    assert all(store.user(f"u{n}") for n in range(300))
    assert publish.progress == 1


def test_a_list_that_cannot_be_made_costs_itself_alone(
    store: Store, recommender: Recommender
) -> None:
    edges = edges_of(*((f"u{n}", "0-3", 12, 1.0) for n in range(300)))
    publish = AllLists(recommender, edges, {0}, 1, "edition")
    while block := publish.begin(POPULAR, lambda n: []):
        if "u200" in block.users:
            publish.failed()
            continue
        block.write(store)
        publish.written()
    assert [n for n in range(300) if not store.user(f"u{n}")] == [200]
    assert store.neighbors("2-2")
