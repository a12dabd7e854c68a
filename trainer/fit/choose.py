"""What the settings leave open, read off held-out edges: nothing is set for a data set.

One part after another, round by round of the part's own grid, the weights last; the measure is
NDCG@20. How the weights are averaged is in weightings.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace

import torch
from torch import Tensor

from trainer.embedding.edges import own
from trainer.fit.evaluate import ndcgs, ranking, scorer
from trainer.fit.weightings import mean_of_best, weightings
from trainer.graph.arrays import Float64s
from trainer.graph.interactions import InteractionGraph
from trainer.model.blend import AllFitted, spread
from trainer.model.hyperparameters import USUAL, AnyPart, Hyperparameters
from trainer.model.neighbors import Neighbors
from trainer.model.part import Fitted, Round, Values
from trainer.model.progress import Progress
from trainer.model.transitions import RECENCIES

log = logging.getLogger("trainer")

USERS = 2_048  # on whom a choice is measured
ORDER_GAIN = 1.01  # times the figure without order that recency and direction must reach
TRIES = 120  # measurements in all, about
FEW = 20.0  # weights up to this, such as ratings, are taken as they are

Scores = Callable[[Tensor], Iterable[Tensor]]


def dampening(
    kept: InteractionGraph, held_out: InteractionGraph, settings: Hyperparameters
) -> float:
    """1 if neighbours of logarithms of 1 + the weights rank held-out edges better, else 0."""
    if kept.weights.max(initial=0) <= FEW:
        return 0.0
    figures = []
    for on in (False, True):
        graph = kept.dampened(on)
        usual = replace(settings.usual().without_time(), dampening=float(on))
        part = Neighbors().fit(graph, usual).embeddings(graph, usual)
        figures.append(ranking(scorer(part, graph), graph, held_out, most=USERS)["ndcg@20"])
    return float(figures[1] > figures[0])


class Chooser:
    """Chooses on a graph `kept` by edges `held_out` of it."""

    def __init__(
        self,
        kept: InteractionGraph,
        held_out: InteractionGraph,
        settings: Hyperparameters,
        progress: Progress,
    ) -> None:
        self._kept = kept
        self._held_out = held_out
        self.settings = settings
        self.fitted: AllFitted = {}
        self._progress = progress
        self._step, self._tries = "", 0

    def choose(self) -> None:
        """Fill in `settings` and leave the parts fitted on `kept`.

        Raises:
            Diverged, TrainingStopped, DeviceMissing: as `Part.fit`.
        """
        # What uses order is first: it tells of what use order is to all parts.
        for part in sorted(self.settings.parts, key=lambda part: not part.uses_order):
            self._step = f"choosing {part.name}"
            self._choose(part)
        self._step = "choosing weights"
        self._weights()

    def _choose(self, part: AnyPart) -> None:
        search = _Search(self, part)
        for each in self._rounds(part):
            search.round(each)
        without = part.without_order(self.settings)
        others = len(self.settings.parts) > 1
        open_ = self.settings.recency is None and self.settings.weight(part) is None
        if without and others and open_:
            plain = [search.figure(s) for s in search.settings(without, force=True)]
            if search.figure(search.best) < ORDER_GAIN * max(plain):
                self.settings = self.settings.without_time()
                return
            self.settings = search.chosen().with_time()
        else:
            self.settings = search.chosen()
        self.fitted[part.name] = search.fitted()

    def _rounds(self, part: AnyPart) -> list[Round]:
        """The part's grid; with recency, if no part before has told."""
        rounds = list(part.grid(self.settings))
        if "recency" in self.settings.missing() and not part.uses_order:
            rounds.append(Round(("recency",), [(r,) for r in RECENCIES]))
        return rounds

    def look(self, fitted: Fitted[Hyperparameters], settings: Hyperparameters) -> float:
        """NDCG of a part by itself."""
        embeddings = fitted.embeddings(self._kept, settings)
        score = scorer(embeddings, self._kept)
        return float(self._ndcgs(lambda users: [score(users)]).mean())

    def fit(self, part: AnyPart, settings: Hyperparameters) -> Fitted[Hyperparameters]:
        """A part, fitted on the edges that are kept."""
        return part.fit(self._kept, settings, self._progress)

    def _weights(self) -> None:
        made = {name: of.embeddings(self._kept, self.settings) for name, of in self.fitted.items()}
        parts = [part for part in self.settings.parts if part.name in made]
        scales = {name: 1 / spread(self._kept, part) for name, part in made.items()}
        tries = weightings([self.settings.weight(part) for part in parts])

        def scores(users: Tensor) -> Iterator[Tensor]:
            edges = own(self._kept, users)
            scored = [made[p.name].score(users, edges) * scales[p.name] for p in parts]
            for weights in tries:
                weighed = zip(weights, scored, strict=True)
                yield sum((w * of for w, of in weighed if w), torch.zeros(()))

        by_user = self._ndcgs(scores)
        figures = by_user.mean(axis=1).tolist()
        open_ = [self.settings.weight(part) is None for part in parts]
        best = mean_of_best(tries, by_user, open_)
        weights = {part.weight: w for part, w in zip(parts, best, strict=True)}
        self.settings = self.settings.filled(weights)
        left = {part.name for part in self.settings.parts}
        self.fitted = {name: of for name, of in self.fitted.items() if name in left}
        alone = [
            f"{part.name} {figures[tries.index(weights)]:.4f}"
            for number, part in enumerate(parts)
            for weights in tries
            if weights[number] and sum(weights) == weights[number]
        ]
        values = {name: value for name, value in asdict(self.settings).items() if name in USUAL}
        words = ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
        log.info(
            "Numbers of the model, set or chosen on held-out edges: %s; ndcg@20 of each part "
            "alone: %s.", words, ", ".join(alone),
        )  # fmt: skip

    def _ndcgs(self, scores: Scores) -> Float64s:
        """NDCG of each ranking and user, float64 [rankings, users]."""
        self._tries += 1
        self._progress(self._step, self._tries, max(TRIES, self._tries), None)
        return ndcgs(scores, self._kept, self._held_out, most=USERS)


class _Search:
    """The search over the grid of one part: what was looked at, and the best so far."""

    def __init__(self, chooser: Chooser, part: AnyPart) -> None:
        self._chooser, self._part, self._given = chooser, part, chooser.settings
        self.best = self._given.usual()
        self._figures: dict[Hyperparameters, float] = {}
        self._last: Fitted[Hyperparameters] | None = None
        self._leading: tuple[float, Fitted[Hyperparameters] | None] = (-1.0, None)
        self._varied: set[str] = set()

    def round(self, each: Round) -> None:
        """Keep the best of a round's values; where there is but one, without a look."""
        self._varied |= set(each.names)
        tries = self.settings(each)
        if len(tries) > 1:
            figures = [self.figure(replace(s, **each.meanwhile)) for s in tries]
            self.best = tries[figures.index(max(figures))]
        else:
            [self.best] = tries

    def settings(self, each: Round, force: bool = False) -> list[Hyperparameters]:
        """The best settings so far with the values of a round, without doubles.

        Args:
            force: also where the user has set something else.
        """
        return list(dict.fromkeys(self._with(each.names, values, force) for values in each.tries))

    def _with(self, names: tuple[str, ...], values: Values, force: bool) -> Hyperparameters:
        free = {
            name: value
            for name, value in zip(names, values, strict=True)
            if force or getattr(self._given, name) is None
        }
        return replace(self.best, **free)  # type: ignore[arg-type]  # by name

    def figure(self, settings: Hyperparameters) -> float:
        """NDCG of the part with these settings, looked at once."""
        if settings not in self._figures:
            self._last = self._fit(settings)
            self._figures[settings] = self._chooser.look(self._last, settings)
            if self._figures[settings] > self._leading[0]:
                self._leading = self._figures[settings], self._last
        return self._figures[settings]

    def chosen(self) -> Hyperparameters:
        """What was given, with the best values of what was varied."""
        values = {
            name: getattr(self.best, name)
            for name in self._varied | self._part.open
            if name != self._part.weight and getattr(self._given, name) is None
        }
        return replace(self._given, **values)

    def fitted(self) -> Fitted[Hyperparameters]:
        """The part as the best settings have it."""
        return self._fit(self.best)

    def _fit(self, settings: Hyperparameters) -> Fitted[Hyperparameters]:
        for fitted in (self._last, self._leading[1]):
            if fitted is not None and fitted.serves(settings):
                return fitted
        return self._chooser.fit(self._part, settings)
