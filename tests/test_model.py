import numpy as np
import pytest
import torch
from torch_geometric.nn import LGConv

from tests.graphs import blocks, graph
from trainer import losses
from trainer.evaluate import predictions, rmse, scorer
from trainer.fit import fit
from trainer.graph import Adjacency, InteractionGraph
from trainer.hyperparameters import Hyperparameters
from trainer.model import LightGCN, RecommenderGCN
from trainer.train import Diverged, Stopped, embeddings, train

CPU = torch.device("cpu")


def all_edges(made: InteractionGraph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    starts, items = made.own(np.arange(made.n_users))
    return torch.arange(made.n_users), torch.from_numpy(starts), torch.from_numpy(items)


def test_lightgcn_propagates_as_the_reference_layers_do() -> None:
    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = LightGCN(made.n_users, made.n_items, 8, 3)
    state = torch.cat([model.users, model.items])
    expected, conv = state, LGConv()
    for _ in range(3):
        state = conv(state, adjacency.edge_index)
        expected = expected + state
    users, items = model(adjacency)
    torch.testing.assert_close(torch.cat([users, items]), expected / 4)


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
    left = model.embeddings(adjacency, cosine=False)
    scores = left.user_vectors(*all_edges(made)) @ left.outgoing.T
    torch.testing.assert_close(scores, users @ items.T, atol=1e-6, rtol=1e-5)


def test_folding_in_a_known_user_with_unchanged_edges_gives_gcns_own_predictions() -> None:
    made = blocks()
    adjacency = Adjacency.of(made, CPU)
    model = RecommenderGCN(made.n_users, made.n_items, 16, 3, 2.5)
    torch.nn.init.normal_(model.bias)
    users, items = model(adjacency)
    user, item = torch.tensor([0, 7, 119]), torch.tensor([3, 40, 11])
    left = model.embeddings(adjacency, cosine=False)
    scores = left.user_vectors(*all_edges(made)) @ left.outgoing.T
    expected = model.predict(users, items, user, item)
    torch.testing.assert_close(scores[user, item], expected, atol=1e-5, rtol=1e-5)


def test_the_softmax_loss_is_the_plain_formula() -> None:
    torch.manual_seed(0)
    normal = torch.nn.functional.normalize
    users, items = normal(torch.randn(3, 4)), normal(torch.randn(5, 4))
    owned = [[0], [1, 2], [0, 3, 4]]
    negatives = torch.tensor([4, 4, 1])
    attraction = torch.stack([items[own].mean(0) for own in owned])
    expected = torch.stack(
        [
            torch.stack([torch.exp(u @ items[j] / 0.2) for j in negatives]).sum().log()
            - sum(u @ items[i] / 0.2 for i in own) / len(own)
            for u, own in zip(users, owned, strict=True)
        ]
    ).mean()
    torch.testing.assert_close(losses.softmax(users, items, attraction, negatives, 0.2), expected)


@pytest.mark.parametrize(("model", "loss"), [("lightgcn", "softmax"), ("gcn", "softmax")])
def test_a_planted_block_structure_is_recovered(model: str, loss: str) -> None:
    made = blocks()
    settings = Hyperparameters(model, loss, dim=16, epochs=60)  # type: ignore[arg-type]
    score = scorer(fit(made, settings).embeddings, made)
    same = [
        (made.user_ids.values[u].as_py()[0], made.item_ids.values[int(i)].as_py()[0])
        for u in range(made.n_users)
        for i in score(torch.tensor([u]))[0].topk(12).indices
    ]
    assert np.mean([a == b for a, b in same]) > 0.99


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


def test_training_twice_with_the_same_seed_gives_the_same_model() -> None:
    made, settings = blocks(), Hyperparameters(dim=8, epochs=5)
    first, second = (embeddings(train(made, settings), made, settings) for _ in range(2))
    torch.testing.assert_close(first.outgoing, second.outgoing)


def test_a_loss_that_is_not_finite_is_said_and_nothing_is_kept() -> None:
    with pytest.raises(Diverged, match="the loss is nan in epoch 1"):
        train(blocks(), Hyperparameters(dim=8, epochs=5, temperature=float("nan")))


def test_training_stops_where_the_progress_says_so() -> None:
    def stop(epoch: int, epochs: int, loss: float) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(blocks(), Hyperparameters(dim=8), stop)


@pytest.mark.parametrize(
    "rows",
    [
        [("u", "i")],
        [("u", f"i{n}") for n in range(9)],
        [(f"u{n}", "i") for n in range(9)],
        [("u", "i"), ("v", "j"), ("v", "j", 1.0, 0, "remove")],
    ],
    ids=["one edge", "one user", "one item", "a user without edges"],
)
@pytest.mark.parametrize("model", ["lightgcn", "gcn"])
def test_the_smallest_graphs_train_to_finite_scores(
    model: str, rows: list[tuple[str, str]]
) -> None:
    made = graph(rows)
    fitted = fit(made, Hyperparameters(model, epochs=3))  # type: ignore[arg-type]
    assert scorer(fitted.embeddings, made)(torch.arange(made.n_users)).isfinite().all()
