"""Objectives of a training: the loss over the edges of a rank, as a function of embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.graph import whole
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Incidence
from trainer.model import losses
from trainer.model.network import TEMPERATURE, Network, NetworkSettings
from trainer.model.product import product

BPR_EDGES = 100_000  # drawn in each step
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # users, items, asked -> this rank's loss


def objective(
    loss: str,
    graph: InteractionGraph,
    network: Network,
    settings: NetworkSettings,
    where: torch.device,
) -> Objective:
    """The loss over the edges of this rank; the sum over the ranks is the loss over the graph's.

    Args:
        loss: softmax, bpr or mse.
    """
    made: dict[str, Callable[[], Objective]] = {
        "softmax": lambda: _softmax(graph, settings, where),
        "bpr": lambda: _bpr(graph, network, where),
        "mse": lambda: _mse(graph, network, where),
    }
    return made[loss]()


def _softmax(graph: InteractionGraph, settings: NetworkSettings, where: torch.device) -> Objective:
    item_sums = torch.from_numpy(graph.item_strengths.astype(np.float64))
    chances = torch.where(item_sums > 0, item_sums ** (settings.negative_power or 0.0), 0.0)
    strengths = torch.from_numpy(graph.strengths).to(where)
    incidence = Incidence(graph, where)
    zeros = torch.zeros(graph.n_users, device=where)
    temperature = settings.temperature or TEMPERATURE
    in_all = whole.strength(graph)

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        users = functional.normalize(users, dim=1)
        items = functional.normalize(items, dim=1)
        shares = strengths * asked
        sums = zeros.index_add(0, incidence.rows, shares)
        attraction = product(*incidence.both(shares), items)
        sampled = torch.multinomial(chances, settings.negatives, replacement=True).to(where)
        return losses.softmax(users, sums, attraction, items[sampled], temperature) / in_all

    return objective


def _bpr(graph: InteractionGraph, network: Network, where: torch.device) -> Objective:
    user = torch.from_numpy(graph.users.astype(np.int64))
    item = torch.from_numpy(graph.items.astype(np.int64))
    liked_at_all = torch.from_numpy(graph.strengths > 0).to(where)
    edges = whole.edges(graph)
    share = len(graph) / edges
    draws = max(1, round(min(BPR_EDGES, edges) * share))

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        liked_ones = (asked & liked_at_all).nonzero()[:, 0]
        if not len(liked_ones):
            return 0.0 * (users.sum() + items.sum())  # nothing to learn; the step goes on
        drawn = liked_ones[torch.randint(len(liked_ones), (draws,)).to(where)].cpu()
        other = torch.randint(graph.n_items, (draws,)).to(where)
        of, liked = user[drawn].to(where), item[drawn].to(where)
        loss = losses.bpr(
            network.predict(users, items, of, liked), network.predict(users, items, of, other)
        )
        return loss * share

    return objective


def _mse(graph: InteractionGraph, network: Network, where: torch.device) -> Objective:
    user = torch.from_numpy(graph.users.astype(np.int64)).to(where)
    item = torch.from_numpy(graph.items.astype(np.int64)).to(where)
    interactions = torch.from_numpy(graph.weights).to(where)
    share = len(graph) / whole.edges(graph)

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        if not len(user):
            return 0.0 * (users.sum() + items.sum())
        predicted = network.predict(users, items, user[asked], item[asked])
        return losses.mse(predicted, interactions[asked]) * share

    return objective
