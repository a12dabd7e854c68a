"""Training, top to bottom: graph -> model -> what serving needs to score, as plain tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from consumer.errors import StreamGCNError
from trainer import losses
from trainer.embeddings import Embeddings
from trainer.graph import Adjacency, InteractionGraph, both_ways
from trainer.hyperparameters import Hyperparameters
from trainer.model import LightGCN, RecommenderGCN, product

Model = LightGCN | RecommenderGCN
Objective = Callable[[Tensor, Tensor], Tensor]  # users, items -> loss
Progress = Callable[[int, int, float], None]  # epoch (from 1), epochs, loss


class Stopped(Exception):
    """Training was told to stop; nothing of it is kept."""


class Diverged(StreamGCNError):
    """The loss is not finite; nothing of the training is kept."""


class DeviceMissing(StreamGCNError):
    """A GPU is asked for and there is none."""


def device(name: str) -> torch.device:
    """The device of the setting `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceMissing: a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceMissing(
            f"STREAMGCN_DEVICE={name}, but no GPU is usable here; set it to auto or cpu"
        )
    return torch.device(name)


def quiet(epoch: int, epochs: int, loss: float) -> None:
    """The progress that shows nothing."""


def train(graph: InteractionGraph, settings: Hyperparameters, progress: Progress = quiet) -> Model:
    """Train a model on all edges of the graph.

    Raises:
        Diverged: the loss is not finite.
        Stopped: from `progress`.
        DeviceMissing: as `device`.
    """
    torch.manual_seed(settings.seed)
    where = device(settings.device)
    adjacency = Adjacency.of(graph, where)
    model, epochs, rate = _model(graph, settings, where)
    objective = (
        _mse(graph, model, where)
        if loss_of(settings) == "mse"
        else _softmax(graph, settings, where)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        users, items = model(adjacency)
        loss = objective(users, items)
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss is {float(loss.detach())} in epoch {epoch}; nothing of it is kept"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        optimizer.step()
        schedule.step()
        progress(epoch, epochs, float(loss.detach()))
    return model


def embeddings(model: Model, graph: InteractionGraph, settings: Hyperparameters) -> Embeddings:
    """What scores and folds in, with the model's tables propagated over `graph`; on the CPU."""
    adjacency = Adjacency.of(graph, device(settings.device))
    made = model.embeddings(adjacency, cosine=loss_of(settings) == "softmax")
    return made.to(torch.device("cpu"))


def _model(
    graph: InteractionGraph, settings: Hyperparameters, where: torch.device
) -> tuple[Model, int, float]:
    """The model, its number of epochs and its learning rate."""
    sizes = (graph.n_users, graph.n_items, settings.dim, settings.layers)
    if settings.model == "gcn":
        model = RecommenderGCN(*sizes, float(graph.weights.mean()))
        return model.to(where), settings.epochs or 200, 0.01
    return LightGCN(*sizes).to(where), settings.epochs or 150, 0.05


def loss_of(settings: Hyperparameters) -> str:
    """The loss that the settings ask for, or the model's own."""
    return settings.loss or ("mse" if settings.model == "gcn" else "softmax")


def _softmax(graph: InteractionGraph, settings: Hyperparameters, where: torch.device) -> Objective:
    degrees = graph.user_degrees
    mean_of_own = both_ways(graph, (1 / degrees[graph.users]).astype(np.float32), where)
    active = torch.from_numpy(np.flatnonzero(degrees)).to(where)
    sampled = torch.from_numpy(graph.item_degrees.astype(np.float32) ** settings.negative_power).to(
        where
    )

    def objective(users: Tensor, items: Tensor) -> Tensor:
        users = functional.normalize(users, dim=1)
        items = functional.normalize(items, dim=1)
        attraction = product(*mean_of_own, items)
        negatives = torch.multinomial(sampled, settings.negatives, replacement=True)
        return losses.softmax(
            users[active], items, attraction[active], negatives, settings.temperature
        )

    return objective


def _mse(graph: InteractionGraph, model: Model, where: torch.device) -> Objective:
    user = torch.from_numpy(graph.users.astype(np.int64)).to(where)
    item = torch.from_numpy(graph.items.astype(np.int64)).to(where)
    interactions = torch.from_numpy(graph.weights).to(where)
    return lambda users, items: losses.mse(model.predict(users, items, user, item), interactions)
