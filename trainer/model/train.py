"""Training by gradients, top to bottom: graph -> tables of the learned part, or of the gcn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from process.errors import StreamGCNError
from trainer.device import device
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency, Incidence
from trainer.hyperparameters import Hyperparameters
from trainer.model import losses, parallel
from trainer.model.biases import user_item_biases
from trainer.model.gcn import RecommenderGCN
from trainer.model.lightgcn import LightGCN
from trainer.model.parallel import OneProcess, summed
from trainer.model.product import product
from trainer.model.progress import Progress, quiet

Model = LightGCN | RecommenderGCN
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # users, items, asked -> this process's loss
Tables = dict[str, Tensor]  # of a model's parameters, by name
EPOCHS, GCN_EPOCHS = 150, 200
RATE, WARM_RATE, GCN_RATE = 0.05, 0.02, 0.01  # of Adam, at the first epoch
GCN_BIAS_RATE, GCN_DECAY, GCN_DROP = 0.001, 1e-4, 0.3  # the last is its edge_drop if none is set
BPR_EDGES = 100_000  # drawn in each step


class Diverged(StreamGCNError):
    """The loss is not finite; nothing of the training is kept."""


class EarlyStopping:
    """The parameters with the least error on edges that are not trained on."""

    def __init__(self, error: Callable[[Model], float]) -> None:
        self.epoch = 0  # after which the error was least
        self._error, self._least = error, float("inf")
        self._tables: Tables = {}

    def look(self, model: Model, epoch: int) -> None:
        """Take note of the parameters after an epoch, if they are the best so far."""
        error = self._error(model)
        if error < self._least:
            self._least, self.epoch = error, epoch
            self._tables = {n: t.clone() for n, t in model.state_dict().items()}

    def restore(self, model: Model) -> None:
        """Put the best parameters back."""
        model.load_state_dict(self._tables)


def train(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress = quiet,
    start: Tables | None = None,
    share: int = 1,
    stopping: EarlyStopping | None = None,
) -> Model:
    """Train LightGCN or the gcn on all edges of the graph; the former in all processes of torchrun.

    Args:
        settings: with nothing `missing` of what the model needs.
        start: parameters to go on from, rows in the graph's numbering.
        share: one in so many of the epochs is done, at least one.
        stopping: looks after every tenth epoch; without it the last parameters are kept.

    Raises:
        Diverged: the loss is not finite.
        Stopped: from `progress`.
        DeviceMissing: as `device`.
        OneProcess: the gcn in several processes.
    """
    torch.manual_seed(settings.seed)
    where = device(settings.device)
    parallel.join(where)
    if settings.model == "gcn" and parallel.several():
        raise OneProcess("the gcn is trained in one process; start it without torchrun")
    mine = parallel.own_edges(graph)
    adjacency = Adjacency.of(graph, where, mine)
    model = _model(graph, settings, where)
    epochs, rate = settings.epochs or GCN_EPOCHS, GCN_RATE
    if isinstance(model, LightGCN):
        epochs = settings.epochs or EPOCHS
        rate = WARM_RATE if start else RATE
    if start:
        model.load_state_dict(start)
    epochs = max(1, epochs // share)
    objective = _objective(graph, graph.subset(mine), model, settings, where)
    optimizer = torch.optim.Adam(_groups(model), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    drop = settings.edge_drop
    if drop is None:
        drop = GCN_DROP if isinstance(model, RecommenderGCN) else 0.0
    asked = torch.ones(int(mine.sum()), dtype=torch.bool, device=where)
    for epoch in range(1, epochs + 1):
        shown = adjacency
        if drop:
            drawn = torch.rand(len(graph))  # the least is asked for in any case, lest none is
            asked = (drawn <= drawn.min().clamp(min=drop))[torch.from_numpy(mine)].to(where)
            shown = adjacency.thinned(~asked)
        users, items = model(shown)
        loss = objective(users, items, asked)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        parallel.sum_gradients(model.parameters())
        value = float(summed(loss.detach()))
        if not np.isfinite(value):
            raise Diverged(f"the loss is {value} in epoch {epoch}; nothing of it is kept")
        optimizer.step()
        schedule.step()
        progress(settings.model, epoch, epochs, value)
        if stopping and (epoch % 10 == 0 or epoch == epochs):
            stopping.look(model, epoch)
    if stopping:
        stopping.restore(model)
    return model


def _groups(model: Model) -> list[dict[str, object]]:
    """The gcn's features decay, so that they add to its biases only what generalises."""
    if isinstance(model, LightGCN):
        return [{"params": list(model.parameters())}]
    return [
        {"params": [model.features], "weight_decay": GCN_DECAY},
        {"params": list(model.convs.parameters())},
        {"params": [model.bias], "lr": GCN_BIAS_RATE},
    ]


def _model(graph: InteractionGraph, settings: Hyperparameters, where: torch.device) -> Model:
    sizes = (graph.n_users, graph.n_items, settings.dim, settings.layers)
    if settings.model != "gcn":
        return LightGCN(*sizes).to(where)
    model = RecommenderGCN(*sizes, float(graph.weights.mean()))
    if settings.objective == "mse":  # the layers begin where users' and items' biases end
        with torch.no_grad():
            model.bias.copy_(torch.from_numpy(np.concatenate(user_item_biases(graph))))
    return model.to(where)


def _objective(
    graph: InteractionGraph,
    mine: InteractionGraph,
    model: Model,
    settings: Hyperparameters,
    where: torch.device,
) -> Objective:
    """The loss over the edges of `mine`, of which each process has its own; their sum is the loss
    over the graph's."""
    match settings.objective:
        case "softmax":
            return _softmax(graph, mine, settings, where)
        case "bpr":
            return _bpr(graph, mine, model, where)
        case "mse":
            return _mse(graph, mine, model, where)


def _softmax(
    graph: InteractionGraph, mine: InteractionGraph, settings: Hyperparameters, where: torch.device
) -> Objective:
    degrees = torch.from_numpy(graph.item_strengths.astype(np.float64))
    chances = torch.where(degrees > 0, degrees ** (settings.negative_power or 0.0), 0.0)
    strengths = torch.from_numpy(mine.strengths).to(where)
    incidence = Incidence(mine, where)
    zeros = torch.zeros(graph.n_users, device=where)
    temperature = settings.temperature or 0.1
    users_in_all = int(np.count_nonzero(graph.user_strengths))

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        users = functional.normalize(users, dim=1)
        items = functional.normalize(items, dim=1)
        shares = strengths * asked
        sums = zeros.index_add(0, incidence.rows, shares)
        shares = shares / sums.clamp(min=1e-12)[incidence.rows]
        attraction = product(*incidence.both(shares), items)
        active = sums > 0
        sampled = torch.multinomial(chances, settings.negatives, replacement=True).to(where)
        total = losses.softmax(users[active], attraction[active], items[sampled], temperature)
        return total / users_in_all

    return objective


def _bpr(
    graph: InteractionGraph, mine: InteractionGraph, model: Model, where: torch.device
) -> Objective:
    user = torch.from_numpy(mine.users.astype(np.int64))
    item = torch.from_numpy(mine.items.astype(np.int64))
    liked_at_all = torch.from_numpy(mine.strengths > 0).to(where)
    share = len(mine) / len(graph)
    draws = max(1, round(min(BPR_EDGES, len(graph)) * share))

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        edges = (asked & liked_at_all).nonzero()[:, 0]
        drawn = edges[torch.randint(len(edges), (draws,)).to(where)].cpu()
        other = torch.randint(graph.n_items, (draws,)).to(where)
        of, liked = user[drawn].to(where), item[drawn].to(where)
        loss = losses.bpr(
            model.predict(users, items, of, liked), model.predict(users, items, of, other)
        )
        return loss * share

    return objective


def _mse(
    graph: InteractionGraph, mine: InteractionGraph, model: Model, where: torch.device
) -> Objective:
    user = torch.from_numpy(mine.users.astype(np.int64)).to(where)
    item = torch.from_numpy(mine.items.astype(np.int64)).to(where)
    interactions = torch.from_numpy(mine.weights).to(where)
    share = len(mine) / len(graph)

    def objective(users: Tensor, items: Tensor, asked: Tensor) -> Tensor:
        predicted = model.predict(users, items, user[asked], item[asked])
        return losses.mse(predicted, interactions[asked]) * share

    return objective
