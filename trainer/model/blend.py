"""The blend: transitions, neighbours, low pass and learned part in one `Embeddings`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from trainer.device import device
from trainer.embedding.edges import TINY, own
from trainer.embedding.embeddings import Embeddings
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.hyperparameters import Hyperparameters
from trainer.model.lightgcn import LightGCN
from trainer.model.low_pass import Spectrum, low_pass, spectrum
from trainer.model.neighbors import neighbors
from trainer.model.progress import Progress
from trainer.model.rows import Rows, together
from trainer.model.train import Tables, train
from trainer.model.transitions import transitions

Part = Literal["neighbors", "low_pass", "learned", "transitions"]
PARTS: tuple[Part, ...] = get_args(Part)
SPREAD_USERS = 256  # on whom a part's spread is measured


@dataclass
class Fitted:
    """What was fitted on a graph; None for a part that has no weight."""

    rows: Rows | None = None
    spectrum: Spectrum | None = None
    learned: LightGCN | None = None
    following: Rows | None = None  # of transitions

    @property
    def near(self) -> tuple[tuple[Part, Rows | None], ...]:
        """The parts that are rows of an item-item matrix."""
        return ("neighbors", self.rows), ("transitions", self.following)


def weight(settings: Hyperparameters, part: Part) -> float | None:
    """The part's weight: 1 for lightgcn's only part, None while it is not chosen."""
    if settings.model == "lightgcn":
        return float(part == "learned")
    value: float | None = getattr(settings, f"{part}_weight")
    return value


def fit(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress,
    basis: Tensor | None = None,
    tables: Tables | None = None,
    share: int = 1,
) -> Fitted:
    """Fit every part that has a weight.

    Args:
        settings: with nothing missing.
        basis: float [items, any], of the last low pass; tables: of the last learned part.
        share: of the epochs, one in so many is done, if there are tables to go on from.

    Raises:
        Diverged, Stopped, DeviceMissing: as `train`.
    """
    made = Fitted()
    if weight(settings, "neighbors"):
        made.rows = rows(graph, settings)
    if weight(settings, "low_pass"):
        where, c = device(settings.device), settings.low_pass_normalization or 0.0
        n = min(settings.vectors or 0, graph.n_users, graph.n_items)
        if basis is not None and basis.shape[1] < n:
            basis = None  # one round would not bring out the others
        made.spectrum = spectrum(graph, n, where, basis, c)
    if weight(settings, "learned"):
        share = share if tables else 1
        made.learned = cast(LightGCN, train(graph, settings, progress, tables, share))
    if weight(settings, "transitions"):
        made.following = following(graph, settings)
    return made


def rows(graph: InteractionGraph, settings: Hyperparameters) -> Rows:
    """The neighbour rows with the settings' exponents."""
    powers = (
        settings.neighbors_user_power,
        settings.neighbors_own_power,
        settings.neighbors_item_power,
    )
    a, p, q = (value or 0.0 for value in powers)
    return neighbors(graph, a, p, q, settings.neighbors_kept)


def following(graph: InteractionGraph, settings: Hyperparameters) -> Rows:
    """The rows of transitions with the settings' numbers."""
    numbers = (
        settings.transitions_decay,
        settings.transitions_backward,
        settings.transitions_own_power,
        settings.transitions_item_power,
    )
    t, b, p, q = (value or 0.0 for value in numbers)
    return transitions(graph, t, b, p, q, settings.transitions_reach, settings.neighbors_kept)


def part_embeddings(
    graph: InteractionGraph, fitted: Fitted, settings: Hyperparameters
) -> dict[Part, Embeddings]:
    """Each part that was fitted, on its own, over `graph`; on the CPU."""
    nothing = torch.zeros(graph.n_items, 0)
    empty = {"base": torch.zeros(graph.n_users, 0), "incoming": nothing, "outgoing": nothing}
    made: dict[Part, Embeddings] = {}
    recency, dampened = settings.recency or 0.0, bool(settings.dampening)
    for part, rows in fitted.near:
        if rows:
            near = {"neighbors": rows.columns, "similarities": rows.values}
            made[part] = Embeddings("blend", 0, True, empty | near, recency, dampened)
    if fitted.spectrum:
        b, damping = settings.low_pass_power or 0.0, settings.low_pass_damping or 0.0
        incoming, outgoing = (t.cpu() for t in low_pass(graph, fitted.spectrum, b, damping))
        low = {"incoming": incoming, "outgoing": outgoing}
        made["low_pass"] = Embeddings("blend", 0, True, empty | low, recency, dampened)
    if fitted.learned:
        learned = fitted.learned.embeddings(graph, settings.objective == "softmax")
        tensors = {name: tensor.cpu() for name, tensor in learned.tensors.items()}
        popular = torch.from_numpy(power(graph.item_strengths, settings.learned_power or 0.0))
        tensors["outgoing"] = tensors["outgoing"] * popular[:, None]
        made["learned"] = replace(learned, tensors=tensors, recency=recency, dampened=dampened)
    return made


def spread(graph: InteractionGraph, part: Embeddings) -> float:
    """Standard deviation of a part's scores over users and items."""
    users = np.flatnonzero(graph.user_strengths)
    users = users[:: max(1, len(users) // SPREAD_USERS)][:SPREAD_USERS]
    chosen = torch.from_numpy(users)
    return max(float(part.score(chosen, own(graph, chosen)).std(unbiased=False)), TINY)


def blend(graph: InteractionGraph, fitted: Fitted, settings: Hyperparameters) -> Embeddings:
    """The parts over `graph` in one, each scaled to unit spread, then by its weight; on the CPU."""
    made = part_embeddings(graph, fitted, settings)
    scales = {
        part: (weight(settings, part) or 0.0) / spread(graph, embeddings)
        for part, embeddings in made.items()
    }
    learned = made.get("learned")
    tensors = {
        "base": learned.tensors["base"] if learned else torch.zeros(graph.n_users, 0),
        "incoming": torch.cat([part.tensors["incoming"] for part in made.values()], 1),
        "outgoing": torch.cat([scales[part] * made[part].outgoing for part in made], 1),
    }
    near = [(found, scales[part]) for part, found in fitted.near if found]
    if len(near) > 1:
        near = [(together(near, graph.n_items, settings.neighbors_kept), 1.0)]
    for found, scale in near:
        tensors["neighbors"], tensors["similarities"] = found.columns, scale * found.values
    # What new_items.py needs besides.
    tensors["strengths"] = torch.from_numpy(graph.item_strengths)
    tensors["scales"] = torch.tensor([scales.get(part, 0.0) for part in PARTS])
    if fitted.spectrum:
        tensors["squares"] = fitted.spectrum.values.cpu() ** 2
    layers, cosine = (learned.layers, learned.cosine) if learned else (0, True)
    recency, dampened = settings.recency or 0.0, bool(settings.dampening)
    return Embeddings(settings.model, layers, cosine, tensors, recency, dampened)
