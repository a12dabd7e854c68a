"""What the settings leave open, read off held-out edges: nothing is set for a data set.

Part by part, round by round of the part's own grid, the weights last; the measure is NDCG@20.
How the weights are averaged is in weightings.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from trainer.embedding.edges import own
from trainer.embedding.scores import score_all
from trainer.fit.evaluate import ndcgs, ranking, scorer
from trainer.fit.search import Search
from trainer.fit.side_by_side import side_by_side
from trainer.fit.weightings import mean_of_best, weightings
from trainer.graph.arrays import Float64s
from trainer.graph.interactions import InteractionGraph
from trainer.model.blend import AllFitted, spread
from trainer.model.hyperparameters import USUAL, AnyPart, Hyperparameters
from trainer.model.neighbors import Neighbors
from trainer.model.part import Fitted, Round
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
    if kept.ranks.largest(float(kept.weights.max(initial=0))) <= FEW:
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
        self._tries = count(1)

    def choose(self) -> None:
        """Fill in `settings` and leave the parts fitted on `kept`.

        The last part is trained on this thread; a second one chooses the parts before it meanwhile.

        Raises:
            Diverged, TrainingStopped, DeviceMissing: as `Part.fit`.
        """
        # What uses order is first: it tells of what use order is to all parts.
        first, *others = sorted(self.settings.parts, key=lambda part: not part.uses_order)
        self._choose_first(first)
        if others:
            *before, last = (partial(self._search, part) for part in others)
            *of_others, of_last = others
            both_at_once = not self._kept.ranks.several  # who all talk on one thread
            searches = side_by_side(last, before, self._progress, both_at_once)
            for part, search in zip([of_last, *of_others], searches, strict=True):
                self._take(part, search)
        self._weights()

    def _choose_first(self, part: AnyPart) -> None:
        search = self._search(part, self._progress, first=True)
        without = part.without_order(self.settings)
        others = len(self.settings.parts) > 1
        open_ = self.settings.recency is None and self.settings.weight(part) is None
        if without and others and open_:
            plain = [search.figure(s) for s in search.settings(without, force=True)]
            if search.figure(search.best) < ORDER_GAIN * max(plain):
                self.settings = self.settings.without_time()
                return
            self._take(part, search)
            self.settings = self.settings.with_time()
        else:
            self._take(part, search)

    def _search(self, part: AnyPart, progress: Progress, first: bool = False) -> Search:
        """Search the part's grid; with recency, if this is the first part and has no such grid."""

        def look(fitted: Fitted[Hyperparameters], settings: Hyperparameters) -> float:
            score = scorer(fitted.embeddings(self._kept, settings), self._kept)
            by_user = self._ndcgs(lambda users: [score(users)], f"choosing {part.name}", progress)
            return float(by_user.mean())

        def fit(settings: Hyperparameters) -> Fitted[Hyperparameters]:
            return part.fit(self._kept, settings, progress)

        search = Search(part, self.settings, fit, look)
        rounds = list(part.grid(self.settings))
        if first and "recency" in self.settings.missing() and not part.uses_order:
            rounds.append(Round(("recency",), [(r,) for r in RECENCIES]))
        for each in rounds:
            search.round(each)
        search.fitted()  # on this thread
        return search

    def _take(self, part: AnyPart, search: Search) -> None:
        self.settings = replace(self.settings, **search.chosen())  # type: ignore[arg-type]
        self.fitted[part.name] = search.fitted()

    def _weights(self) -> None:
        self._kept.prepare()
        made = {name: of.embeddings(self._kept, self.settings) for name, of in self.fitted.items()}
        parts = [part for part in self.settings.parts if part.name in made]
        scales = {name: 1 / spread(self._kept, part) for name, part in made.items()}
        tries = weightings([self.settings.weight(part) for part in parts])

        def scores(users: Tensor) -> Iterator[Tensor]:
            edges, ranks = own(self._kept, users), self._kept.ranks
            scored = torch.empty(len(parts), len(users), self._kept.n_items)
            for row, part in zip(scored, parts, strict=True):
                by_part = score_all(made[part.name], users, edges, self._kept.n_items, ranks)
                torch.mul(by_part, scales[part.name], out=row)
            for weights in tries:
                yield (scored.new_tensor(weights) @ scored.flatten(1)).view(scored.shape[1:])

        by_user = self._ndcgs(scores, "choosing weights", self._progress)
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

    def _ndcgs(self, scores: Scores, stage: str, progress: Progress) -> Float64s:
        """NDCG of each ranking and user, float64 [rankings, users]."""
        tries = next(self._tries)
        progress(stage, tries, max(TRIES, tries), None)
        return ndcgs(scores, self._kept, self._held_out, most=USERS)
