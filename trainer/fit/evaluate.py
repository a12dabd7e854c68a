"""Offline measures: recall and NDCG over a full ranking, RMSE of explicit ratings, baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.embedding.edges import own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.largest import largest
from trainer.embedding.predictions import predictions, rmse
from trainer.embedding.scores import score_all
from trainer.graph.arrays import Float64s, Int64s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.popularity import recent
from trainer.graph.user_order import in_order, one_in
from trainer.model.biases import predicted_by_biases
from trainer.ranks import Ranks
from trainer.threads import on_threads

BLOCK = 256  # users that a thread ranks at a time, fewer where items are many
SCORES = 12_500_000  # in a thread's memory at a time
AT = (20,)  # places of a list that are looked at, if nothing else is asked for
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
    figures, baseline = rankings(both(score, popular), train, test, most=most)
    made = {name: figures[name] for name in ("recall@20", "ndcg@20")}
    made["popularity_ndcg@20"] = baseline["ndcg@20"]
    return made | measure_rmse(embeddings, train, test)


def measure_rmse(
    embeddings: Embeddings, train: InteractionGraph, test: InteractionGraph
) -> dict[str, float]:
    """The RMSE of a gcn that predicts interactions, as `measure` has it; of others nothing."""
    if not embeddings.predicts:
        return {}
    mean = np.full(len(test), train.weights.mean(), np.float32)
    return {
        "rmse": rmse(predictions(embeddings, train, test), test.weights),
        "rmse_mean": rmse(mean, test.weights),
        "rmse_biases": rmse(predicted_by_biases(train, test), test.weights),
    }


def both(first: Scorer, second: Scorer) -> Callable[[Tensor], Iterable[Tensor]]:
    """Two rankings side by side, as `rankings` and `ndcgs` take them."""
    return lambda users: (score(users) for score in (first, second))


def scorer(embeddings: Embeddings, graph: InteractionGraph) -> Scorer:
    """Scores each user by its edges in `graph`, with the embeddings' own fold-in."""

    where = embeddings.outgoing.device
    graph = graph.dampened(embeddings.dampened)
    graph.prepare()
    return lambda users: score_all(
        embeddings, users.to(where), own(graph, users).to(where), graph.n_items, graph.ranks
    ).cpu()


def ranking(
    score: Scorer,
    train: InteractionGraph,
    test: InteractionGraph,
    at: Sequence[int] = AT,
    most: int | None = None,
) -> dict[str, float]:
    """The figures of one scorer; as `rankings`."""
    return rankings(lambda users: [score(users)], train, test, at, most)[0]


def rankings(
    scores: Callable[[Tensor], Iterable[Tensor]],
    train: InteractionGraph,
    test: InteractionGraph,
    at: Sequence[int] = AT,
    most: int | None = None,
) -> list[dict[str, float]]:
    """Hit rate, recall and NDCG at each k of `at`, of several rankings side by side.

    Each figure is a mean over users with test edges of some strength: others say what users did
    not like. Every item that the user has no train edge to is ranked. A hit: one of the first k is
    a test item; recall = hits / test items; NDCG with binary relevance, the ideal over
    min(k, test items) (He et al., LightGCN, 2020).

    Args:
        scores: for a block of users several [block, items], which are overwritten.
        train: edges to leave out of the ranking; `test` has the same nodes.
        most: users to measure at most, evenly taken, for a quick look.
    """
    names = [f"{measure}@{k}" for k in at for measure in ("hit_rate", "recall", "ndcg")]
    sums: list[Tensor] = []
    users = 0
    for number, figures in _by_user(scores, train, test, at, most):
        if number == len(sums):
            sums.append(torch.zeros(len(names), dtype=torch.float64))
        sums[number] += figures.sum(1)
        users += figures.shape[1] if number == 0 else 0
    sums, users = _over_all(sums, users, train.ranks)
    means = [(total / max(1, users)).tolist() for total in sums] or [[0.0] * len(names)]
    return [dict(zip(names, mean, strict=True)) for mean in means]


def ndcgs(
    scores: Callable[[Tensor], Iterable[Tensor]],
    train: InteractionGraph,
    test: InteractionGraph,
    k: int = 20,
    most: int | None = None,
) -> Float64s:
    """NDCG@k of each user that `rankings` takes the mean of, in the same order; those of all ranks,
    one rank after another.

    Returns:
        float64 [rankings, users]; [0, 0] without users.
    """
    found: list[list[Tensor]] = []
    for number, figures in _by_user(scores, train, test, (k,), most):
        if number == len(found):
            found.append([])
        found[number].append(figures[2])
    rankings = train.ranks.most(len(found))
    by_user = np.empty((rankings, 0))
    if found:
        by_user = np.array([torch.cat(each).numpy() for each in found])
    return np.ascontiguousarray(train.ranks.joined(by_user.T).T)


def _by_user(
    scores: Callable[[Tensor], Iterable[Tensor]],
    train: InteractionGraph,
    test: InteractionGraph,
    at: Sequence[int],
    most: int | None,
) -> Iterator[tuple[int, Tensor]]:
    """For each block of users and each of the `scores` its number, and the users' figures.

    The figures are float64 [3 * len(at), block], in the order in which `rankings` names them.
    """
    test = test.subset(test.strengths > 0)
    degrees = test.user_degrees
    users = in_order(test.user_ids, degrees > 0, test.ranks)
    in_all = test.ranks.total(len(users))
    users = one_in(-(-in_all // most), users, test.ranks) if most and in_all else users
    size = block_size(train.n_items)

    def figures(begin: int) -> list[Tensor]:
        block = users[begin : begin + size]
        seen = _entries(train, block)
        relevant = torch.zeros(len(block), train.n_items, dtype=torch.bool)
        relevant[_entries(test, block)] = True
        wanted, made = torch.from_numpy(degrees[block]), []
        for scored in scores(torch.from_numpy(block)):
            scored[seen] = -torch.inf
            hits = relevant.gather(1, largest(scored, min(max(at), scored.shape[1]))[1])
            made.append(torch.cat([_figures(hits[:, :k], wanted, k) for k in at]))
        return made

    # Several ranks score the users of all together, so each has as many blocks, if without users.
    several, blocks = train.ranks.several, train.ranks.most(-(-len(users) // size))
    begins = range(0, size * blocks, size)
    for of_block in map(figures, begins) if several else on_threads(figures, begins):
        yield from enumerate(of_block)


def _over_all(sums: list[Tensor], users: int, ranks: Ranks) -> tuple[list[Tensor], int]:
    """What all ranks have summed, of whom one without users has summed nothing."""
    rankings = ranks.most(len(sums))
    width = ranks.most(len(sums[0]) if sums else 0)
    whole = [*sums, *(torch.zeros(width, dtype=torch.float64) for _ in range(rankings - len(sums)))]
    return [ranks.sum_tensor(each) for each in whole], ranks.total(users)


def _figures(hits: Tensor, wanted: Tensor, k: int) -> Tensor:
    """Hit, recall and NDCG of each user, float64 [3, block].

    Args:
        hits: bool [block, at most k], which of a user's first items are test items;
        wanted: int64 [block], how many test items the user has.
    """
    discounts = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    ideal = discounts.cumsum(0)[wanted.clamp(max=k) - 1]
    found = hits.sum(1).double()
    ndcg = (hits * discounts[: hits.shape[1]]).sum(1) / ideal
    return torch.stack([found.clamp(max=1), found / wanted, ndcg])


def block_size(n_items: int) -> int:
    """Users whose scores of all items are in memory at a time."""
    return max(1, min(BLOCK, SCORES // n_items))


def popularity(train: InteractionGraph) -> Scorer:
    """The scorer that ranks items by their number of train edges, the same for everyone."""
    liked = np.bincount(train.items[train.strengths > 0], minlength=train.n_items)
    counts = torch.from_numpy(train.ranks.sum(liked).astype(np.float32))
    return lambda users: counts.repeat(len(users), 1)


def popular_list(train: InteractionGraph) -> Scorer:
    """The scorer of the popular list that serving offers, the same for everyone."""
    counts = torch.from_numpy(recent(train).astype(np.float32))
    return lambda users: counts.repeat(len(users), 1)


def _entries(graph: InteractionGraph, users: Int64s) -> tuple[Tensor, Tensor]:
    """Positions (row in the block, item) of the users' edges, int64 [edges of the block]."""
    starts, at = graph.places_of(users)
    rows = np.repeat(np.arange(len(users)), np.diff(starts))
    return torch.from_numpy(rows), torch.from_numpy(graph.items[at].astype(np.int64))
