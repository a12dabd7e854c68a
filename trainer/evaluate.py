"""Offline measures: recall and NDCG over a full ranking, RMSE of explicit ratings, baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from trainer.biases import predicted_by_biases
from trainer.embeddings import Embeddings, Own
from trainer.graph import InteractionGraph
from trainer.largest import largest
from trainer.weights import Float32s, Int64s

BLOCK = 1_024  # users ranked at a time, fewer where items are many:
SCORES = 50_000_000  # scores in memory at a time
Scorer = Callable[[Tensor], Tensor]  # int64 user numbers [block] -> scores [block, items]


def measure(
    embeddings: Embeddings,
    train: InteractionGraph,
    test: InteractionGraph,
    most: int | None = None,
) -> dict[str, float]:
    """The figures of a model trained on `train` and propagated over it, measured on `test`.

    Both graphs have the same nodes, and test has an edge. A gcn that predicts interactions (its
    scores are no cosines) has `rmse` beside that of the mean and of user and item biases.
    """
    score, popular = scorer(embeddings, train), popularity(train)
    figures, baseline = rankings(lambda u: (s(u) for s in (score, popular)), train, test, most=most)
    figures["popularity_ndcg@20"] = baseline["ndcg@20"]
    if embeddings.model == "gcn" and not embeddings.cosine:
        mean = np.full(len(test), train.weights.mean(), np.float32)
        figures["rmse"] = rmse(predictions(embeddings, train, test), test.weights)
        figures["rmse_mean"] = rmse(mean, test.weights)
        figures["rmse_biases"] = rmse(predicted_by_biases(train, test), test.weights)
    return figures


def scorer(embeddings: Embeddings, graph: InteractionGraph) -> Scorer:
    """Scores each user by its edges in `graph`, with the embeddings' own fold-in."""

    where = embeddings.outgoing.device
    return lambda users: embeddings.score(users.to(where), own(graph, users).to(where)).cpu()


def own(graph: InteractionGraph, users: Tensor) -> Own:
    """The edges in `graph` of users int64 [block]."""
    return Own(*(torch.from_numpy(column) for column in graph.own(users.numpy())))


def predictions(
    embeddings: Embeddings, train: InteractionGraph, test: InteractionGraph
) -> Float32s:
    """Predicted interaction of each test edge from the train edges, float32 [test edges]."""
    users = torch.arange(train.n_users)
    vectors = embeddings.user_vectors(users, own(train, users))
    ends = vectors[test.users.astype(np.int64)] * embeddings.outgoing[test.items.astype(np.int64)]
    predicted: Float32s = ends.sum(1).numpy()
    return predicted


def ranking(
    score: Scorer,
    train: InteractionGraph,
    test: InteractionGraph,
    k: int = 20,
    most: int | None = None,
) -> dict[str, float]:
    """Recall@k and NDCG@k of one scorer; as `rankings`."""
    return rankings(lambda users: [score(users)], train, test, k, most)[0]


def rankings(
    scores: Callable[[Tensor], Iterable[Tensor]],
    train: InteractionGraph,
    test: InteractionGraph,
    k: int = 20,
    most: int | None = None,
) -> list[dict[str, float]]:
    """Recall@k and NDCG@k of several rankings side by side, each a mean over users with test edges
    of some strength: others say what users did not like.

    Every item that the user has no train edge to is ranked. recall = hits / test items;
    NDCG with binary relevance, the ideal over min(k, test items) (He et al., LightGCN, 2020).

    Args:
        scores: for a block of users several [block, items], which are overwritten.
        train: edges to leave out of the ranking; `test` has the same nodes.
        most: users to measure at most, evenly taken, for a quick look.
    """
    sums: list[Tensor] = []
    discounts = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    ideal = torch.cat([torch.zeros(1, dtype=torch.float64), discounts.cumsum(0)])
    test = test.subset(test.strengths > 0)
    users = np.flatnonzero(test.user_degrees)
    users = users[:: -(-len(users) // most)] if most else users
    size = block_size(train.n_items)
    for begin in range(0, len(users), size):
        block = users[begin : begin + size]
        seen = _entries(train, block)
        relevant = torch.zeros(len(block), train.n_items, dtype=torch.bool)
        relevant[_entries(test, block)] = True
        wanted = relevant.sum(1)
        for number, scored in enumerate(scores(torch.from_numpy(block))):
            scored[seen] = -torch.inf
            hits = relevant.gather(1, largest(scored, min(k, scored.shape[1]))[1])
            recall = hits.sum(1) / wanted
            ndcg = (hits * discounts[: hits.shape[1]]).sum(1) / ideal[wanted.clamp(max=k)]
            if number == len(sums):
                sums.append(torch.zeros(2, dtype=torch.float64))
            sums[number] += torch.stack([recall.sum(), ndcg.sum()])
    means = [(total / max(1, len(users))).tolist() for total in sums] or [[0.0, 0.0]]
    return [{f"recall@{k}": recall, f"ndcg@{k}": ndcg} for recall, ndcg in means]


def block_size(n_items: int) -> int:
    """Users whose scores of all items are in memory at a time."""
    return max(1, min(BLOCK, SCORES // n_items))


def popularity(train: InteractionGraph) -> Scorer:
    """The scorer that ranks items by their number of train edges, the same for everyone."""
    liked = train.items[train.strengths > 0]
    counts = torch.from_numpy(np.bincount(liked, minlength=train.n_items).astype(np.float32))
    return lambda users: counts.repeat(len(users), 1)


def rmse(predicted: Float32s, actual: Float32s) -> float:
    """Root of the mean squared error; both float [edges], in the interaction's unit."""
    return float(np.sqrt(np.mean((predicted.astype(np.float64) - actual) ** 2)))


def _entries(graph: InteractionGraph, users: Int64s) -> tuple[Tensor, Tensor]:
    """Positions (row in the block, item) of the users' edges, int64 [edges of the block]."""
    starts, items, _ = graph.own(users)
    rows = np.repeat(np.arange(len(users)), np.diff(starts))
    return torch.from_numpy(rows), torch.from_numpy(items)
