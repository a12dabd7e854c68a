"""The loop of a training by gradients: full-batch steps over the edges of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from process.errors import StreamGCNError
from trainer.device import device
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model.adam import Adam
from trainer.model.network import Network, NetworkSettings, Tables
from trainer.model.objectives import objective
from trainer.model.parallel import sum_gradients
from trainer.model.progress import Progress


class Diverged(StreamGCNError):
    """The loss is not finite; nothing of the training is kept."""


class EarlyStopping:
    """The parameters with the least error on edges that are not trained on."""

    def __init__(self, error: Callable[[Network], float]) -> None:
        self.epoch = 0  # after which the error was least
        self._error, self._least = error, float("inf")
        self._tables: Tables = {}

    def look(self, network: Network, epoch: int) -> None:
        """Take note of the parameters after an epoch, if they are the best so far."""
        error = self._error(network)
        if error < self._least:
            self._least, self.epoch = error, epoch
            self._tables = {n: t.clone() for n, t in network.state_dict().items()}

    def restore(self, network: Network) -> None:
        """Put the best parameters back."""
        network.load_state_dict(self._tables)


def begin(settings: NetworkSettings, rank: int = 0) -> torch.device:
    """Set the seed, and say where to train: before a network is made.

    Args:
        rank: where ranks are to draw other numbers than one another.

    Raises:
        DeviceMissing: as `device`.
    """
    torch.manual_seed(settings.seed + rank)
    return device(settings.device)


def train(
    network: Network,
    graph: InteractionGraph,
    settings: NetworkSettings,
    loss: str,
    optimizers: Sequence[Adam],
    epochs: int,
    drop: float,
    progress: Progress,
    stopping: EarlyStopping | None = None,
) -> None:
    """Train a network in place on all edges of the graph, on all ranks.

    Args:
        network: on the device that `begin` gave.
        loss: softmax, bpr or mse.
        optimizers: have each parameter once, and as many steps as there are epochs.
        drop: share of the edges that is left out of the graph in each step.
        stopping: looks after every tenth epoch; without it the last parameters are kept.

    Raises:
        Diverged: the loss is not finite.
        TrainingStopped: from `progress`.
    """
    where = next(network.parameters()).device
    adjacency, ranks = Adjacency.of(graph, where), graph.ranks
    loss_of = objective(loss, graph, network, settings, where)
    asked = torch.ones(len(graph), dtype=torch.bool, device=where)
    stage = settings.model
    for epoch in range(1, epochs + 1):
        shown = adjacency
        if drop and len(graph):
            drawn = torch.rand(len(graph))  # the least is asked for in any case, lest none is
            asked = (drawn <= drawn.min().clamp(min=drop)).to(where)
            shown = adjacency.thinned(~asked)
        users, items = network(shown)
        error = loss_of(users, items, asked)
        error.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        sum_gradients(network.shared(), ranks)
        value = float(ranks.sum_tensor(error.detach()))
        if not np.isfinite(value):
            raise Diverged(f"the loss is {value} in epoch {epoch}; nothing of it is kept")
        for each in optimizers:
            each.step()
        progress(stage, epoch, epochs, value)
        if stopping and (epoch % 10 == 0 or epoch == epochs):
            stopping.look(network, epoch)
    if stopping:
        stopping.restore(network)
