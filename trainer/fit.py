"""From a graph to the embeddings of a snapshot and their figures, with one training.

The newest edges of each user are held out of the training; on them the figures are measured and
the popularity bias is chosen. Then the tables are propagated over the whole graph, so the newest
edges shape the vectors that are published, and the figures stay honest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.embeddings import Embeddings
from trainer.evaluate import measure, ranking, scorer
from trainer.graph import InteractionGraph
from trainer.hyperparameters import Hyperparameters
from trainer.train import Progress, embeddings, quiet, train

HELD_OUT = 0.1  # newest share of each user's edges
POPULARITY = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)  # tried on the held-out edges
PRIOR_POPULARITY = 1.0  # where nothing could be held out
CHOOSING_USERS = 4_000  # that the choice is made on


@dataclass(frozen=True)
class Fitted:
    """Embeddings over the whole graph; what the held-out edges say; seconds of each stage."""

    embeddings: Embeddings
    metrics: dict[str, float]
    seconds: dict[str, float]


def fit(graph: InteractionGraph, settings: Hyperparameters, progress: Progress = quiet) -> Fitted:
    """Train, choose, measure, propagate.

    Raises:
        Diverged, Stopped, DeviceMissing: as `train`.
    """
    begun = time.monotonic()
    newest = graph.newest(HELD_OUT)
    kept, held_out = graph.subset(~newest), graph.subset(newest)
    model = train(kept, settings, progress)
    trained = time.monotonic()
    candidate = embeddings(model, kept, settings)
    metrics: dict[str, float] = {}
    strength = 0.0
    if candidate.cosine:
        strength = _popularity(candidate, kept, held_out, settings)
        candidate = candidate.with_item_bias(_bias(kept, strength, settings))
        metrics["popularity"] = strength
    if len(held_out):
        metrics |= measure(candidate, kept, held_out)
    measured = time.monotonic()
    made = embeddings(model, graph, settings)
    if made.cosine:
        made = made.with_item_bias(_bias(graph, strength, settings))
    seconds = {
        "train": trained - begun,
        "evaluate": measured - trained,
        "propagate": time.monotonic() - measured,
    }
    return Fitted(made, metrics, seconds)


def _popularity(
    candidate: Embeddings,
    kept: InteractionGraph,
    held_out: InteractionGraph,
    settings: Hyperparameters,
) -> float:
    """Strength of the popularity bias with the best NDCG on the held-out edges."""
    if settings.popularity is not None:
        return settings.popularity
    if not len(held_out):
        return PRIOR_POPULARITY

    def ndcg(strength: float) -> float:
        biased = candidate.with_item_bias(_bias(kept, strength, settings))
        return ranking(scorer(biased, kept), kept, held_out, most=CHOOSING_USERS)["ndcg@20"]

    return max(POPULARITY, key=ndcg)


def _bias(graph: InteractionGraph, strength: float, settings: Hyperparameters) -> Tensor:
    """temperature * strength * log(1 + degree), float [items].

    A softmax over items drawn in proportion to degree ** b learns log p(item) - b log degree in
    units of the temperature (the correction of sampled softmax, Bengio & Senecal, 2008); what is
    to be added back differs from b because each user counts once here, however many its edges.
    """
    degrees = torch.from_numpy(graph.item_degrees).float()
    return settings.temperature * strength * torch.log1p(degrees)
