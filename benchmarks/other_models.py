"""Models of other libraries and papers, trained and measured on the same graphs as ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.nn.models import LightGCN as PygLightGCN

from trainer.fit.evaluate import ranking
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency

CPU = torch.device("cpu")
Result = dict[str, object]
Figures = dict[str, float]
NEIGHBOURS = 256  # of an item, the most similar ones


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def core_seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes of all cores together: other work on the machine is not in it."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def incidence(train: InteractionGraph) -> csr_matrix:
    """1 for each edge, float32 [users, items]."""
    ones = np.ones(len(train), np.float32)
    return csr_matrix((ones, (train.users, train.items)), (train.n_users, train.n_items))


def implicit_models(train: InteractionGraph, test: InteractionGraph) -> dict[str, Figures]:
    """implicit's ALS and BPR with 128 factors and the library's other defaults."""
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking

    matrix = incidence(train)
    made: dict[str, Figures] = {}
    for name, model in (
        ("implicit ALS", AlternatingLeastSquares(factors=128, random_state=0)),
        ("implicit BPR", BayesianPersonalizedRanking(factors=128, random_state=0)),
    ):
        seconds = core_seconds(partial(model.fit, matrix, show_progress=False))
        users, items = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
        score = partial(products, users, items)
        made[name] = ranking(score, train, test) | {"core_seconds": seconds}
    return made


def products(of_users: Tensor, of_items: Tensor, users: Tensor) -> Tensor:
    """Scores of all items for some users."""
    return of_users[users] @ of_items.T


def item_neighbours(train: InteractionGraph, test: InteractionGraph) -> Figures:
    """implicit's item-item cosine: a user's items add up the similarities to their NEIGHBOURS."""
    from implicit.nearest_neighbours import CosineRecommender

    matrix, model = incidence(train), CosineRecommender(K=NEIGHBOURS)
    seconds = core_seconds(lambda: model.fit(matrix, show_progress=False))
    similar = model.similarity

    def score(users: Tensor) -> Tensor:
        return torch.from_numpy((matrix[users.numpy()] @ similar).toarray().astype(np.float32))

    return ranking(score, train, test) | {"core_seconds": seconds}


def pyg_lightgcn(train: InteractionGraph, test: InteractionGraph, limit: float) -> Figures:
    """PyG LightGCN and its BPR loss, batches of 2,048 edges, Adam 0.001, stopped at `limit` s."""
    model = PygLightGCN(train.n_users + train.n_items, 64, 3)
    edges = Adjacency.of(train, CPU).incidence.edge_index
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    begun, steps, n = time.monotonic(), 0, len(train)
    while time.monotonic() - begun < limit:
        drawn = torch.randint(n, (2_048,))
        users, liked = edges[0, drawn], edges[1, drawn]
        other = torch.randint(train.n_items, (2_048,)) + train.n_users
        nodes = model.get_embedding(edges)
        pairs = [(nodes[users] * nodes[of]).sum(1) for of in (liked, other)]
        loss = model.recommendation_loss(*pairs, node_id=torch.cat([users, liked, other]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    seconds = time.monotonic() - begun
    nodes = model.get_embedding(edges).detach()
    users, items = nodes[: train.n_users], nodes[train.n_users :]
    figures = ranking(lambda u: users[u] @ items.T, train, test)
    return figures | {"seconds": seconds, "steps": steps}


def ease(train: InteractionGraph, test: InteractionGraph) -> Figures:
    """EASE with the regularisation of the paper for MovieLens, 500."""
    begun = time.process_time()
    matrix = incidence(train)
    gram = torch.from_numpy((matrix.T @ matrix).toarray())
    gram.diagonal().add_(500)
    gram = torch.linalg.cholesky(gram)
    inverse = torch.cholesky_inverse(gram)
    # The same matrix with rows in memory one after another, which scipy would make at each product.
    shares, found = inverse.diagonal(), inverse.T.numpy()
    seconds = time.process_time() - begun

    def score(users: Tensor) -> Tensor:
        # The weights' diagonal is 0, but what the user has is not ranked.
        return torch.from_numpy(matrix[users.numpy()] @ found).div_(-shares)

    return ranking(score, train, test) | {"core_seconds": seconds}
