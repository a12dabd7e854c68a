"""From a graph to the embeddings of a snapshot and their figures.

The newest edges of each user are held out: on them what is open in the settings is chosen and the
figures are measured. Then the filters are made anew over the whole graph and the learned part goes
on from its tables for some steps over it (the gcn is trained anew), so the newest edges shape what
is published and the figures stay honest. Where no user has enough edges to hold one out, the first
fit is of the whole graph.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace

from trainer.embedding.embeddings import Embeddings
from trainer.fit.check import check
from trainer.fit.choose import Chooser, dampening
from trainer.fit.evaluate import measure
from trainer.graph import whole
from trainer.graph.arrays import Bools, Int8s
from trainer.graph.holdout import JUDGED_USERS, held_out_edges, judged_users
from trainer.graph.interactions import InteractionGraph
from trainer.memory import give_back
from trainer.model import blend
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.part import State
from trainer.model.progress import Progress, quiet

OVER = 10  # of the epochs one in so many, to go on from the kept edges to the whole graph
WARM = 50  # to go on from the last training, which has seen most of the edges; there and then
MEASURED = 5_000  # users on whom the figures are taken, at most
CHOSEN_ON = 2_000_000  # edges; in a larger graph one user in so many is chosen on


@dataclass(frozen=True)
class Learned:
    """What was learned from the edges that are not held out.

    settings: with what was chosen. newest: bool [edges], those that are held out. left_out: whether
    any is, on any rank. metrics: figures on these. seconds: of each stage. start: what this
    training and the next ones may go on from; it has not seen the held-out edges. epochs: steps
    that were found to be best. share: the training over the whole graph does one in so many.
    """

    settings: Hyperparameters
    newest: Bools
    left_out: bool
    metrics: dict[str, float]
    seconds: dict[str, float]
    start: State
    epochs: int | None
    share: int


@dataclass(frozen=True)
class Trial(Learned):
    """The same with what shows how good it is: `candidate`, embeddings over the edges `kept`, of
    which the metrics are. They are as large as those over the whole graph."""

    candidate: Embeddings
    kept: InteractionGraph
    held_out: InteractionGraph

    @property
    def learned(self) -> Learned:
        """What the training goes on with, without what shows how good it is."""
        return Learned(**{each.name: getattr(self, each.name) for each in fields(Learned)})


@dataclass(frozen=True)
class Fit(Trial):
    """A trial, and embeddings over the whole graph."""

    embeddings: Embeddings


def fit(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress = quiet,
    start: State | None = None,
    novelty: Int8s | None = None,
    newest: Bools | None = None,
) -> Fit:
    """Both halves of a training; arguments and errors are those of `fit_kept`."""
    trial = fit_kept(graph, settings, progress, start, novelty, newest)
    made = fit_over(graph, trial, progress) if trial.left_out else trial.candidate
    return Fit(**vars(trial), embeddings=made)


def fit_kept(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress = quiet,
    start: State | None = None,
    novelty: Int8s | None = None,
    newest: Bools | None = None,
) -> Trial:
    """Hold out, choose, train and measure.

    Args:
        start: what to go on from, rows in the graph's numbering, zero for new nodes.
        novelty: of each edge to the last training, [edges], as `held_out_edges` has it.
        newest: bool [edges], which of them are held out; None for those of `held_out_edges`.

    Raises:
        NothingToLearn, NothingJoined: as `check`, of the edges that are not held out.
        Diverged, TrainingStopped, DeviceMissing: as `Part.fit`.
    """
    clock = _Clock()
    n_edges = whole.edges(graph)
    settings = settings.for_graph(n_edges, whole.timed(graph))
    if newest is None:
        newest = held_out_edges(graph, novelty, liked=settings.objective != "mse")
    kept, held_out = graph.subset(~newest), graph.subset(newest)
    check(kept, settings)
    one_in = -(-n_edges // CHOSEN_ON)
    some, asked = kept.every(one_in), held_out.every(one_in)
    if judged_users(asked) < JUDGED_USERS:
        settings = settings.usual()
    if "dampening" in settings.missing():
        settings = replace(settings, dampening=dampening(some, asked, settings))
    on = bool(settings.dampening)
    kept, held_out = kept.dampened(on), held_out.dampened(on)
    if settings.missing():
        settings, fitted = _chosen(some.dampened(on), asked.dampened(on), settings, progress)
        if one_in > 1:
            fitted = blend.fit(kept, settings, progress)
    else:
        share = WARM if start else 1
        fitted = blend.fit(kept, settings, progress, start, share, held_out)
    clock.lap("train")
    candidate = blend.blend(kept, fitted, settings)
    left, epochs = blend.state(fitted, settings), _epochs(fitted)
    del fitted  # large, and its job is done
    give_back()
    clock.lap("propagate")
    metrics = measure(candidate, kept, held_out, MEASURED) if whole.liked(held_out) else {}
    clock.lap("evaluate")
    left_out, share = graph.ranks.any(bool(newest.any())), WARM if start else OVER
    learned = settings, newest, left_out, metrics, clock.seconds, left, epochs, share
    return Trial(*learned, candidate, kept, held_out)


def fit_over(graph: InteractionGraph, learned: Learned, progress: Progress = quiet) -> Embeddings:
    """Go on over the whole graph, where edges were held out. Who no longer holds the trial leaves
    memory for it.

    Raises:
        Diverged, TrainingStopped, DeviceMissing: as `Part.fit`.
    """
    begun, settings = time.monotonic(), learned.settings
    graph = graph.dampened(bool(settings.dampening))
    for_all = replace(settings, epochs=learned.epochs or settings.epochs)
    over = blend.fit(graph, for_all, progress, learned.start, learned.share)
    made = blend.blend(graph, over, settings)
    learned.seconds["propagate"] += time.monotonic() - begun
    return made


def fit_all(graph: InteractionGraph, settings: Hyperparameters, progress: Progress) -> Embeddings:
    """Train on every edge; for settings that leave nothing open.

    Raises:
        NothingToLearn, NothingJoined: as `check`.
        Diverged, TrainingStopped, DeviceMissing: as `Part.fit`.
    """
    settings = settings.for_graph(whole.edges(graph), whole.timed(graph))
    graph = graph.dampened(bool(settings.dampening))
    check(graph, settings)
    return blend.blend(graph, blend.fit(graph, settings, progress), settings)


def _chosen(
    kept: InteractionGraph,
    held_out: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress,
) -> tuple[Hyperparameters, blend.AllFitted]:
    """Settings with nothing missing, and the parts fitted with them."""
    chooser = Chooser(kept, held_out, settings, progress)
    chooser.choose()
    return chooser.settings, chooser.fitted


def _epochs(fitted: blend.AllFitted) -> int | None:
    """The steps that a part has found to be best."""
    return next((part.epochs for part in fitted.values() if part.epochs), None)


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = now - self._begun
        self._begun = now
