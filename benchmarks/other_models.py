"""Models of other libraries and papers, trained and measured on the same graphs as ours."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch_geometric.nn.models import LightGCN as PygLightGCN

from trainer.fit.evaluate import ranking
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency

CPU = torch.device("cpu")
Result = dict[str, object]


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def implicit_models(train: InteractionGraph, test: InteractionGraph) -> Result:
    """implicit's ALS and BPR with 128 factors and the library's other defaults."""
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    shape = (train.n_users, train.n_items)
    ones = np.ones(len(train), np.float32)
    matrix = csr_matrix((ones, (train.users, train.items)), shape)
    made: Result = {}
    for name, model in (
        ("implicit ALS", AlternatingLeastSquares(factors=128, random_state=0)),
        ("implicit BPR", BayesianPersonalizedRanking(factors=128, random_state=0)),
    ):
        seconds = timed(lambda model=model: model.fit(matrix, show_progress=False))
        users, items = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
        figures = ranking(lambda u, a=users, b=items: a[u] @ b.T, train, test)
        made[name] = figures | {"seconds": seconds}
    return made


def pyg_lightgcn(train: InteractionGraph, test: InteractionGraph, limit: float) -> Result:
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


def ease(train: InteractionGraph, test: InteractionGraph) -> dict[str, float]:
    """EASE with the regularisation of its paper for MovieLens, 500."""
    matrix = torch.zeros(train.n_users, train.n_items)
    matrix[train.users.astype(np.int64), train.items.astype(np.int64)] = 1
    inverse = torch.linalg.inv(matrix.T @ matrix + 500 * torch.eye(train.n_items))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0)
    return ranking(lambda users: matrix[users] @ weights, train, test)
