import math

import numpy as np
import pytest
import torch

from tests.graphs import blocks, graph, own_block
from trainer.device import device
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.predictions import predictions, rmse
from trainer.fit.check import NothingJoined
from trainer.fit.evaluate import scorer
from trainer.fit.fit import fit
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model import losses
from trainer.model.gcn import Gcn, OneProcess, RecommenderGCN
from trainer.model.gradient_training import Diverged
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.learned import Learned
from trainer.model.lightgcn import LightGCN
from trainer.model.objectives import objective
from trainer.model.progress import TrainingStopped
from trainer.model.weighted_sums import weighted_sums
from trainer.ranks import Ranks

CPU = torch.device("cpu")


def all_scores(left: Embeddings, made: InteractionGraph) -> torch.Tensor:
    return scorer(left, made)(torch.arange(made.n_users))


def test_lightgcn_propagates_as_the_reference_layers_do() -> None:
    from torch_geometric.nn import LGConv  # 4 s of CPU, which each worker would take

    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = LightGCN(made.n_users, made.n_items, 8, 3)
    state = torch.cat([model.users, model.items])
    expected, conv = state, LGConv()
    for _ in range(3):
        state = conv(state, adjacency.incidence.edge_index)
        expected = expected + state
    users, items = model(adjacency)
    torch.testing.assert_close(torch.cat([users, items]), expected / 4)


def test_the_gcn_computes_what_pygs_gcnconv_layers_do() -> None:
    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = RecommenderGCN(made.n_users, made.n_items, 8, 3, 2.5)
    for conv in model.convs:
        torch.nn.init.normal_(conv.bias)  # type: ignore[arg-type]
    state = model.features
    for number, conv in enumerate(model.convs):
        state = conv(state, adjacency.incidence.edge_index)
        state = state.relu() if number < 2 else state
    torch.testing.assert_close(torch.cat(model(adjacency)), state)


def test_a_thinned_graph_is_to_the_gcn_a_graph_without_those_edges() -> None:
    made = blocks()
    model = RecommenderGCN(made.n_users, made.n_items, 8, 3, 2.5)
    kept = np.random.default_rng(0).random(len(made)) < 0.7
    thinned = model(Adjacency.of(made, CPU).thinned(torch.from_numpy(kept)))
    without = model(Adjacency.of(made.subset(kept), CPU))
    torch.testing.assert_close(thinned, without)


def test_gradients_through_the_sparse_product_are_those_of_the_dense_one() -> None:
    made = blocks(2, 6, 5, 3)
    adjacency = Adjacency.of(made, CPU)
    model = LightGCN(made.n_users, made.n_items, 4, 2)
    users, items = model(adjacency)
    (users.square().sum() + (items**3).sum()).backward()
    dense = adjacency.by_user.to_dense()
    u0 = model.users.detach().clone().requires_grad_()
    i0 = model.items.detach().clone().requires_grad_()
    u1, i1 = dense @ i0, dense.T @ u0
    users, items = (u0 + u1 + dense @ i1) / 3, (i0 + i1 + dense.T @ u1) / 3
    (users.square().sum() + (items**3).sum()).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.users.grad, u0.grad)
    torch.testing.assert_close(model.items.grad, i0.grad)


def test_folding_in_a_known_user_with_unchanged_edges_gives_lightgcns_own_scores() -> None:
    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = LightGCN(made.n_users, made.n_items, 16, 3)
    users, items = model(adjacency)
    scores = all_scores(model.embeddings(made, cosine=False), made)
    torch.testing.assert_close(scores, users @ items.T, atol=1e-6, rtol=1e-5)


def test_folding_in_a_known_user_with_unchanged_edges_gives_gcns_own_predictions() -> None:
    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = RecommenderGCN(made.n_users, made.n_items, 16, 3, 2.5)
    torch.nn.init.normal_(model.bias)
    users, items = model(adjacency)
    user, item = torch.tensor([0, 7, 119]), torch.tensor([3, 40, 11])
    scores = all_scores(model.embeddings(made, cosine=False), made)
    expected = model.predict(users, items, user, item)
    torch.testing.assert_close(scores[user, item], expected, atol=1e-5, rtol=1e-5)


def plain_softmax(
    users: torch.Tensor,
    items: torch.Tensor,
    edges: list[tuple[int, int, float]],
    sampled: torch.Tensor,
) -> torch.Tensor:
    return torch.stack(
        [
            strength
            * (
                torch.stack([torch.exp(users[u] @ items[j] / 0.2) for j in sampled]).sum().log()
                - users[u] @ items[i] / 0.2
            )
            for u, i, strength in edges
        ]
    ).sum()


def test_the_fused_softmax_and_its_gradients_are_the_plain_formulas() -> None:
    torch.manual_seed(0)
    edges = [(0, 0, 1.0), (1, 1, 2.0), (1, 2, 0.5), (3, 0, 1.0), (3, 3, 3.0), (3, 4, 1.0)]
    sampled = torch.tensor([4, 4, 1])
    users = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)  # one of them has no edge
    items = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    expected = plain_softmax(users, items, edges, sampled)
    wanted = torch.autograd.grad(expected, (users, items))
    strengths = torch.zeros(4, 5, dtype=torch.float64)
    for user, item, strength in edges:
        strengths[user, item] = strength
    fused = losses.softmax(users, strengths.sum(1), strengths @ items, items[sampled], 0.2)
    torch.testing.assert_close(fused, expected)
    found = torch.autograd.grad(fused, (users, items))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_the_fused_softmax_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    users = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    sampled = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    degrees = torch.arange(10, dtype=torch.float64)
    whole = losses.softmax(users, degrees, users.detach(), sampled, 0.1)
    wanted = torch.autograd.grad(whole, (users, sampled))
    monkeypatch.setattr(losses, "USERS", 3)
    blocked = losses.softmax(users, degrees, users.detach(), sampled, 0.1)
    torch.testing.assert_close(blocked, whole)
    torch.testing.assert_close(torch.autograd.grad(blocked, (users, sampled)), wanted)


def test_the_gradient_of_weighted_sums_is_the_one_of_a_dense_product() -> None:
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(7, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    rows = torch.tensor([[0, 5, 5], [2, 0, 0], [0, 0, 0]])
    weights = torch.tensor([[0.5, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).double()
    dense = torch.zeros(3, 7, dtype=torch.float64).scatter_add_(1, rows, weights)
    wanted = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    for ints in (rows, rows.int()):
        made = weighted_sums(table, ints, weights)
        torch.testing.assert_close(made, dense @ table)
        [gradient] = torch.autograd.grad((made * wanted).sum(), table)
        torch.testing.assert_close(gradient, dense.T @ wanted)


def test_the_softmax_of_next_items_is_a_cross_entropy_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(3)
    states, wanted, sampled = (
        torch.randn(n, 3, dtype=torch.float64, generator=generator, requires_grad=True)
        for n in (4, 4, 6)
    )
    log_wanted, log_sampled = (
        torch.rand(n, dtype=torch.float64, generator=generator) for n in (4, 6)
    )
    same = torch.zeros(4, 6, dtype=torch.bool)
    same[1, 2] = same[1, 5] = same[3, 0] = True

    def plain(states: torch.Tensor, wanted: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        scores = (states @ sampled.T - log_sampled).masked_fill(same, -torch.inf)
        first = (states * wanted).sum(1, keepdim=True) - log_wanted[:, None]
        rows = torch.cat([first, scores], 1)
        return torch.nn.functional.cross_entropy(rows, torch.zeros(4, dtype=torch.int64))

    expected, fast = (
        plain(states, wanted, sampled),
        losses.next_items(states, wanted, sampled, log_wanted, log_sampled, same),
    )
    torch.testing.assert_close(fast, expected)
    inputs = (states, wanted, sampled)
    for mine, right in zip(
        *(torch.autograd.grad(2 * e, inputs) for e in (fast, expected)), strict=True
    ):
        torch.testing.assert_close(mine, right)


def test_bpr_is_the_log_sigmoid_of_the_difference() -> None:
    liked, other = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])
    expected = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    torch.testing.assert_close(losses.bpr(liked, other), torch.tensor(expected))


def test_bpr_takes_a_step_in_which_it_asks_for_nothing_that_is_liked() -> None:
    made = graph([("u", "i", -1.0), ("u", "j", 1.0)])
    settings = Hyperparameters("lightgcn", "bpr", dim=2).usual()
    on_cpu = torch.device("cpu")
    asked_for = objective("bpr", made, LightGCN(1, 2, 2, 1), settings, on_cpu)
    users = torch.ones(1, 2, requires_grad=True)
    loss = asked_for(users, torch.ones(2, 2), torch.tensor([True, False]))
    assert loss == 0
    assert torch.autograd.grad(loss, users)[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("model", "loss"),
    [("lightgcn", "softmax"), ("lightgcn", "bpr"), ("gcn", "softmax")],
)
def test_a_planted_block_structure_is_recovered(model: str, loss: str) -> None:
    made = blocks()
    settings = Hyperparameters(model, loss, dim=16, epochs=60)  # type: ignore[arg-type]
    assert own_block(fit(made, settings.usual()).embeddings, made) > 0.99


def test_gcn_with_mse_learns_ratings_that_its_two_ends_determine() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{i}", 3.0 + (u % 2) - (i % 3) * 0.5)
        for u in range(40)
        for i in rng.choice(30, 20, replace=False)
    ]
    made = graph(rows)
    fitted = fit(made, Hyperparameters("gcn", "mse", dim=8))
    error = rmse(predictions(fitted.embeddings, made, made), made.weights)
    assert error < 0.25 * np.std(made.weights)
    assert fitted.metrics["rmse"] < fitted.metrics["rmse_mean"]  # of edges held out of training


def test_the_gcn_that_is_published_was_trained_on_the_held_out_edges_too() -> None:
    rows = [(f"u{u}", f"i{i}", 3.0 + i % 2, i) for u in range(20) for i in range(10)]
    rows += [(f"u{u}", "newest", 5.0, 99) for u in range(20)]  # held out of every user
    made = graph(rows)
    fitted = fit(made, Hyperparameters("gcn", dim=8))
    of_newest = fitted.held_out
    assert set(of_newest.items) == {10}
    candidate = predictions(fitted.candidate, fitted.kept, of_newest)
    published = predictions(fitted.embeddings, fitted.kept, of_newest)
    assert rmse(candidate, of_newest.weights) > 1.0  # it has never seen the item
    assert rmse(published, of_newest.weights) < 0.5


def test_training_twice_with_the_same_seed_gives_the_same_model() -> None:
    made, settings = blocks(), Hyperparameters("lightgcn", dim=8, epochs=5)
    first, second = (Learned().fit(made, settings).state(settings) for _ in range(2))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_a_loss_that_is_not_finite_is_said_and_nothing_is_kept(kind: float) -> None:
    numbers = Hyperparameters(dim=8, epochs=5, temperature=float("nan"), learned_order=kind)
    with pytest.raises(Diverged, match=f"the loss is nan in {'step' if kind else 'epoch'} 1"):
        Learned().fit(blocks(), numbers)


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_training_stops_where_the_progress_says_so(kind: float) -> None:
    def stop(stage: str, done: int, steps: int, loss: float | None) -> None:
        raise TrainingStopped

    with pytest.raises(TrainingStopped):
        Learned().fit(blocks(), Hyperparameters(dim=8, learned_order=kind).usual(), stop)


@pytest.mark.parametrize(
    "rows",
    [
        [("u", "i"), ("u", "j")],
        [("u", f"i{n}") for n in range(9)],
        [("u", "i"), ("u", "j"), ("v", "j"), ("v", "j", 1.0, 0, "remove")],
    ],
    ids=["two edges", "one user", "a user without edges"],
)
@pytest.mark.parametrize("model", ["blend", "lightgcn", "gcn"])
def test_the_smallest_graphs_train_to_finite_scores(
    model: str, rows: list[tuple[str, str]]
) -> None:
    made = graph(rows)
    fitted = fit(made, Hyperparameters(model, epochs=3))  # type: ignore[arg-type]
    assert scorer(fitted.embeddings, made)(torch.arange(made.n_users)).isfinite().all()


@pytest.mark.parametrize(
    "rows", [[("u", "i")], [(f"u{n}", f"i{n % 2}") for n in range(9)]], ids=["one edge", "stars"]
)
@pytest.mark.parametrize("model", ["blend", "lightgcn", "gcn"])
def test_where_nobody_has_two_items_only_a_model_of_ratings_has_something_to_learn(
    model: str, rows: list[tuple[str, str]]
) -> None:
    settings = Hyperparameters(model, epochs=3)  # type: ignore[arg-type]
    if model == "gcn":
        assert fit(graph(rows), settings).embeddings.predicts
    else:
        with pytest.raises(NothingJoined, match=f"none of the {len(rows)} users has two items"):
            fit(graph(rows), settings)


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device("auto") == device("cuda") == torch.device("cuda:1")
    assert device("cuda:0") == torch.device("cuda:0")


def test_the_gcn_in_several_processes_is_refused() -> None:
    shared = blocks()
    shared.ranks = Ranks()
    shared.ranks.size = 2
    with pytest.raises(OneProcess, match="start it without torchrun"):
        Gcn().fit(shared, Hyperparameters("gcn", epochs=1))
