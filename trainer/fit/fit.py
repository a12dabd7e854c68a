"""From a graph to the embeddings of a snapshot and their figures.

The newest edges of each user are held out: on them what is open in the settings is chosen and the
figures are measured. Then the filters are made anew over the whole graph and the learned part goes
on from its tables for some steps over it (the gcn is trained anew), so the newest edges shape what
is published and the figures stay honest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from torch import Tensor

from process.errors import StreamGCNError
from trainer.embedding.embeddings import Embeddings
from trainer.fit.choose import PRIORS, Chooser, dampening
from trainer.fit.evaluate import measure, predictions, rmse
from trainer.graph.arrays import Bools, Int8s
from trainer.graph.holdout import JUDGED_USERS, held_out_edges, judged_users
from trainer.graph.interactions import InteractionGraph
from trainer.hyperparameters import Hyperparameters
from trainer.model import blend
from trainer.model.blend import Fitted
from trainer.model.lightgcn import LightGCN
from trainer.model.progress import Progress, quiet
from trainer.model.train import EarlyStopping, Model, Tables, train

OVER = 10  # of the epochs one in so many, to go on from the kept edges to the whole graph
WARM = 50  # to go on from the last training, which has seen most of the edges; there and then
MEASURED = 5_000  # users on whom the figures are taken, at most
CHOSEN_ON = 2_000_000  # edges; in a larger graph one user in so many is chosen on


class NothingToLearn(StreamGCNError):
    """No edge of the graph has any strength."""


@dataclass(frozen=True)
class Start:
    """What a training goes on from, rows in the graph's numbering, zero for new nodes."""

    basis: Tensor | None = None  # float [items, any], of the low pass
    tables: Tables = field(default_factory=dict)  # of the learned part


@dataclass(frozen=True)
class Fit:
    """Embeddings over the whole graph, and how they came about.

    settings: with what was chosen. newest: bool [edges], those that are in `held_out`.
    candidate: embeddings over `kept`, which the metrics are of. start: what the next training may
    go on from; it has not seen `held_out`.
    """

    embeddings: Embeddings
    settings: Hyperparameters
    newest: Bools
    kept: InteractionGraph
    held_out: InteractionGraph
    candidate: Embeddings
    metrics: dict[str, float]
    seconds: dict[str, float]
    start: Start


def fit(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress = quiet,
    start: Start | None = None,
    novelty: Int8s | None = None,
    newest: Bools | None = None,
) -> Fit:
    """Hold out, choose, train, measure, and fit over the whole graph.

    Args:
        start: what to go on from.
        novelty: of each edge to the last training, [edges], as `held_out_edges` has it.
        newest: bool [edges], which of them are held out; None for those of `held_out_edges`.

    Raises:
        NothingToLearn: no edge says what users like.
        Diverged, Stopped, DeviceMissing: as `train`.
    """
    clock = _Clock()
    settings = settings.for_graph(len(graph), bool(graph.timed.any()))
    if newest is None:
        newest = held_out_edges(graph, novelty, liked=settings.objective != "mse")
    kept, held_out = graph.subset(~newest), graph.subset(newest)
    if settings.model != "gcn" and not kept.strengths.any():
        raise NothingToLearn(
            "no edge has a weight above 0; send positive interactions or set STREAMGCN_TYPE_WEIGHTS"
        )
    if judged_users(held_out) < JUDGED_USERS:
        settings = settings.filled(PRIORS)
    one_in = -(-len(graph) // CHOSEN_ON)
    if "dampening" in settings.missing():
        chosen = dampening(kept.every(one_in), held_out.every(one_in), settings)
        settings = replace(settings, dampening=chosen)
    on = bool(settings.dampening)
    graph, kept, held_out = graph.dampened(on), kept.dampened(on), held_out.dampened(on)
    if settings.model == "gcn":
        fitted = Fitted()
        stopping = _stopping(kept, held_out, settings)
        model = train(kept, settings, progress, stopping=stopping)
        candidate = model.embeddings(kept, settings.objective == "softmax").cpu()
        clock.lap("train")
        epochs = stopping.epoch if stopping else settings.epochs
        made = fit_all(graph, replace(settings, epochs=epochs), progress)
    else:
        if settings.missing():
            chooser = Chooser(kept.every(one_in), held_out.every(one_in), settings, progress)
            chooser.choose()
            settings, fitted = chooser.settings, chooser.fitted
            if one_in > 1:
                fitted = _from(Start(), kept, settings, progress, 1)
        else:
            fitted = _from(start or Start(), kept, settings, progress, WARM if start else 1)
        clock.lap("train")
        candidate = blend.blend(kept, fitted, settings)
        share = WARM if start else OVER
        over = _from(_start(fitted), graph, settings, progress, share)
        made = blend.blend(graph, over, settings)
    clock.lap("propagate")
    metrics = measure(candidate, kept, held_out, MEASURED) if held_out.strengths.any() else {}
    clock.lap("evaluate")
    return Fit(
        made, settings, newest, kept, held_out, candidate, metrics, clock.seconds, _start(fitted)
    )


def _stopping(
    kept: InteractionGraph, held_out: InteractionGraph, settings: Hyperparameters
) -> EarlyStopping | None:
    """By the RMSE on the held-out edges, for a model that predicts interactions."""
    if settings.objective != "mse" or not len(held_out):
        return None

    def error(model: Model) -> float:
        embeddings = model.embeddings(kept, cosine=False).cpu()
        return rmse(predictions(embeddings, kept, held_out), held_out.weights)

    return EarlyStopping(error)


def fit_all(graph: InteractionGraph, settings: Hyperparameters, progress: Progress) -> Embeddings:
    """Train on every edge; for settings that leave nothing open.

    Raises:
        Diverged, Stopped, DeviceMissing: as `train`.
    """
    settings = settings.for_graph(len(graph), bool(graph.timed.any()))
    graph = graph.dampened(bool(settings.dampening))
    if settings.model == "gcn":
        model = train(graph, settings, progress)
        return model.embeddings(graph, cosine=settings.objective == "softmax").cpu()
    return blend.blend(graph, blend.fit(graph, settings, progress), settings)


def _from(
    start: Start,
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress,
    share: int,
) -> Fitted:
    return blend.fit(graph, settings, progress, start.basis, start.tables, share)


def _start(fitted: Fitted) -> Start:
    learned: LightGCN | None = fitted.learned
    return Start(
        fitted.spectrum.vectors.cpu() if fitted.spectrum else None,
        {n: p.detach().cpu().clone() for n, p in learned.named_parameters()} if learned else {},
    )


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = now - self._begun
        self._begun = now
