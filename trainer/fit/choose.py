"""What the settings leave open, read off held-out edges: nothing is set for a data set.

One part after another, each from a coarse grid, the weights last; the measure is NDCG@20.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import NamedTuple, cast

import torch
from torch import Tensor

from trainer.device import device
from trainer.embedding.edges import own
from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import ranking, rankings, scorer
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.hyperparameters import Hyperparameters
from trainer.model.blend import (
    PARTS,
    Fitted,
    Part,
    following,
    part_embeddings,
    rows,
    spread,
    weight,
)
from trainer.model.lightgcn import LightGCN
from trainer.model.low_pass import Spectrum, leading, spectrum
from trainer.model.progress import Progress
from trainer.model.train import EPOCHS, train

log = logging.getLogger("trainer")

USERS = 2_048  # on whom a choice is measured
RECENCIES = (0.0, 0.5, 0.75, 1.0, 1.25)
DECAYS = (0.3, 0.5, 0.8)
BACKWARDS = (0.2, 0.5)  # what comes before counts less than what comes after
ORDER_GAIN = 1.01  # times the figure without order that recency and direction must reach
TRANSITION_OWN_POWERS = (0.3, 0.5, 0.7, 0.9)
TRANSITION_ITEM_POWERS = (0.0, 0.1, 0.2, 0.35)
USER_POWERS = (1.0, 0.7, 0.4, 0.1)
OWN_POWERS = (0.3, 0.5, 0.7, 0.9, 1.1)
ITEM_POWERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
NORMALIZATIONS = (0.5, 0.0)  # for sparse graphs, for dense ones
COARSE = 128  # vectors by which they are told apart
VECTORS = (256, 512, 1_024)
LOW_PASS_POWERS = (0.0, 0.2, 0.3, 0.4, 0.5)
DAMPINGS = (0.03, 0.1, 0.3, 0.5, 1.0)
LEARNED = (  # temperature, negative_power, edge_drop: for sparse graphs, for dense ones
    (0.1, 0.5, 0.0),
    (0.2, 1.0, 0.3),
)
LEARNED_POWERS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
WEIGHTS = (0.0, 0.5, 1.0, 2.0)
FEW_WEIGHTS = (0.0, 1.0, 2.0)  # for four parts
TRIES = 30  # measurements in all, about
FEW = 20.0  # weights up to this, such as ratings, are taken as they are
PRIORS = {  # where nothing could be held out
    "dampening": 0.0,
    "recency": 0.75, "transitions_weight": 1.0, "transitions_decay": 0.5,
    "transitions_backward": 0.2, "transitions_own_power": 0.5, "transitions_item_power": 0.1,
    "neighbors_weight": 1.0, "neighbors_user_power": 0.7,
    "neighbors_own_power": 0.7, "neighbors_item_power": 0.2,
    "low_pass_weight": 1.0, "low_pass_normalization": 0.5,
    "low_pass_power": 0.4, "low_pass_damping": 0.3, "vectors": 1_024,
    "learned_weight": 1.0, "learned_power": 0.2,
    "temperature": 0.1, "negative_power": 0.5, "edge_drop": 0.0,
}  # fmt: skip

Scores = Callable[[Tensor], Iterable[Tensor]]


def dampening(
    kept: InteractionGraph, held_out: InteractionGraph, settings: Hyperparameters
) -> float:
    """1 if neighbours of logarithms of 1 + the weights rank held-out edges better, else 0."""
    if kept.weights.max(initial=0) <= FEW:
        return 0.0
    usual = settings.filled(PRIORS).without_time()
    figures = []
    for on in (False, True):
        graph = kept.dampened(on)
        fitted = Fitted(rows=rows(graph, usual))
        part = part_embeddings(graph, fitted, replace(usual, dampening=float(on)))["neighbors"]
        figures.append(ranking(scorer(part, graph), graph, held_out, most=USERS)["ndcg@20"])
    return float(figures[1] > figures[0])


class _Trained(NamedTuple):
    """A learned part, how well it ranks held-out edges, and with what it was made."""

    ndcg: float
    settings: Hyperparameters
    model: LightGCN


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
        self.fitted = Fitted()
        self._progress = progress
        self._step, self._tries = "", 0

    def choose(self) -> None:
        """Fill in `settings` and leave the parts fitted on `kept`.

        Raises:
            Diverged, Stopped, DeviceMissing: as `train`.
        """
        steps: dict[Part, Callable[[], None]] = {
            "transitions": self._transitions,  # first: it tells of what use order is to all parts
            "neighbors": self._neighbors,
            "low_pass": self._low_pass,
            "learned": self._learned,
        }
        for part in steps:
            if weight(self.settings, part) != 0:
                self._step = f"choosing {part}"
                steps[part]()
        self._step = "choosing weights"
        self._weights()

    def _transitions(self) -> None:
        names = ("recency", "transitions_decay", "transitions_backward",
                 "transitions_own_power", "transitions_item_power")  # fmt: skip
        grids = (RECENCIES, DECAYS, BACKWARDS, TRANSITION_OWN_POWERS, TRANSITION_ITEM_POWERS)
        recencies, decays, backwards, own_, item = (
            self._open(n, grid) for n, grid in zip(names, grids, strict=True)
        )
        degrees = self._kept.item_strengths
        tried: dict[tuple[float, ...], float] = {}

        def look(
            rs: tuple[float, ...], t: float, b: float, ps: tuple[float, ...], q: float
        ) -> None:
            settings = replace(
                self.settings,
                recency=0.0,
                transitions_decay=t,
                transitions_backward=b,
                transitions_own_power=0.0,
                transitions_item_power=q,
            )
            fitted = Fitted(following=following(self._kept, settings))
            part = part_embeddings(self._kept, fitted, settings)["transitions"]
            kinds = list(product(rs, ps))

            def scores(users: Tensor) -> Iterator[Tensor]:
                edges = own(self._kept, users)
                for r, p in kinds:
                    recent = edges.recent(r)
                    factor = torch.from_numpy(power(degrees, -p))[edges.items]
                    yield part.score(users, recent._replace(strengths=recent.strengths * factor))

            for (r, p), figure in zip(kinds, self._ndcg(scores), strict=True):
                tried[r, t, b, p, q] = figure

        middle = (decays[len(decays) // 2], backwards[0], own_, item[len(item) // 3])
        look(recencies, *middle)
        r, t, b, p, q = _best(tried)
        for other in decays:
            if other != t:
                look((r,), other, b, (p,), q)
        r, t, b, p, q = _best(tried)
        for other in backwards[1:]:
            look((r,), t, other, (p,), q)
        r, t, b, p, q = _best(tried)
        for other in item:
            if other != q:
                look((r,), t, b, own_, other)
        best = _best(tried)
        look((0.0,), best[1], 1.0, own_, best[-1])
        without = max(figure for (r, _, b, *_), figure in tried.items() if (r, b) == (0.0, 1.0))
        if tried[best] < ORDER_GAIN * without:
            self.settings = self.settings.without_time()
            return
        self._set(dict(zip(names, best, strict=True)))
        self.fitted.following = following(self._kept, self.settings)

    def _neighbors(self) -> None:
        names = ("neighbors_user_power", "neighbors_own_power", "neighbors_item_power")
        grids = (USER_POWERS, OWN_POWERS, ITEM_POWERS)
        user, own_, item = (self._open(n, grid) for n, grid in zip(names, grids, strict=True))
        degrees = self._kept.item_strengths
        scale = [torch.from_numpy(power(degrees, -p)) for p in own_]

        def measured(a: float, q: float) -> dict[tuple[float, ...], float]:
            tried = replace(
                self.settings,
                neighbors_user_power=a,
                neighbors_own_power=0.0,
                neighbors_item_power=q,
            )
            fitted = Fitted(rows=rows(self._kept, tried))
            part = part_embeddings(self._kept, fitted, tried)["neighbors"]

            def scores(users: Tensor) -> Iterator[Tensor]:
                edges = own(self._kept, users)
                for factor in scale:  # up to a factor of the user the scores with that exponent
                    strengths = edges.strengths * factor[edges.items]
                    yield part.score(users, edges._replace(strengths=strengths))

            figures = self._ndcg(scores)
            return {(a, p, q): figure for p, figure in zip(own_, figures, strict=True)}

        middle = item[len(item) // 3]
        tried: dict[tuple[float, ...], float] = {}
        for a in user:
            tried |= measured(a, middle)
        best = _best(tried)
        for q in item:
            if q != middle:
                tried |= measured(best[0], q)
        self._set(dict(zip(names, _best(tried), strict=True)))
        self.fitted.rows = rows(self._kept, self.settings)

    def _low_pass(self) -> None:
        names = ("low_pass_normalization", "low_pass_power", "low_pass_damping", "vectors")
        grids = (NORMALIZATIONS, LOW_PASS_POWERS, DAMPINGS, VECTORS)
        normal, powers, dampings, sizes = (
            self._open(n, g) for n, g in zip(names, grids, strict=True)
        )
        where, tried = device(self.settings.device), dict[tuple[float, ...], float]()

        def look(made: Spectrum, *values: float) -> None:
            if values not in tried:
                settings = self.settings.filled(dict(zip(names, values, strict=True)))
                fitted = Fitted(spectrum=leading(made, int(values[-1])))
                part = part_embeddings(self._kept, fitted, settings)["low_pass"]
                tried[values] = self._variants(part, [torch.ones(())])[0]

        if len(normal) > 1:  # few vectors tell them apart
            for c in normal:
                coarse = spectrum(self._kept, COARSE, where, None, c)
                nearest = min(powers, key=lambda b: abs(b - c))
                look(coarse, c, nearest, dampings[min(1, len(dampings) - 1)], COARSE)
        c, b, *_ = _best(tried) if tried else (normal[0], powers[len(powers) // 2])
        tried.clear()
        most = max(sizes)
        made = spectrum(self._kept, int(most), where, None, c)
        for damping in dampings:
            look(made, c, b, damping, most)
        *_, damping, _ = _best(tried)
        for b in powers:
            look(made, c, b, damping, most)
        best = _best(tried)[:-1]
        for n in sizes:
            if n < len(made.values):
                look(made, *best, n)
        best = _best(tried)
        self._set(dict(zip(names, best, strict=True)))
        self.fitted.spectrum = leading(made, int(best[-1]))

    def _learned(self) -> None:
        names = ("temperature", "negative_power", "edge_drop")
        grid = LEARNED if self.settings.objective == "softmax" else LEARNED[:1]
        kinds = list(
            dict.fromkeys(self.settings.filled(dict(zip(names, k, strict=True))) for k in grid)
        )
        kind, short = kinds[0], list[_Trained]()
        if len(kinds) > 1:  # a third of the steps tells them apart
            steps = max(1, (self.settings.epochs or EPOCHS) // 3)
            short = [self._trained(replace(k, epochs=steps)) for k in kinds]
            kind = _better(short).settings
        tried = [self._trained(replace(kind, epochs=self.settings.epochs))]
        if self.settings.epochs is None:  # a third may do better, too
            tried += short
        self.settings, self.fitted.learned = _better(tried).settings, _better(tried).model

    def _trained(self, kind: Hyperparameters) -> _Trained:
        """The learned part, trained, with its best learned_power if that is open."""
        model = cast(LightGCN, train(self._kept, kind, self._progress))
        powers = self._open("learned_power", LEARNED_POWERS)
        plain = replace(kind, learned_power=0.0)
        part = part_embeddings(self._kept, Fitted(learned=model), plain)["learned"]
        scale = [torch.from_numpy(power(self._kept.item_strengths, p)) for p in powers]
        figures = self._variants(part, scale)
        best = max(figures)
        return _Trained(best, replace(kind, learned_power=powers[figures.index(best)]), model)

    def _weights(self) -> None:
        parts = part_embeddings(self._kept, self.fitted, self.settings)
        scales = {name: 1 / spread(self._kept, part) for name, part in parts.items()}
        grid = WEIGHTS if len(parts) < len(PARTS) else FEW_WEIGHTS
        options = [
            self._open(f"{name}_weight", grid) if name in parts else (0.0,) for name in PARTS
        ]
        tries = _distinct(list(product(*options)))

        def scores(users: Tensor) -> Iterator[Tensor]:
            edges = own(self._kept, users)
            scored = {n: part.score(users, edges) * scales[n] for n, part in parts.items()}
            for weights in tries:
                yield sum(
                    (w * scored[n] for n, w in zip(PARTS, weights, strict=True) if w),
                    torch.zeros(()),
                )

        figures = self._ndcg(scores)
        best = tries[figures.index(max(figures))]
        alone = {
            name: figures[tries.index(weights)]
            for number, name in enumerate(PARTS)
            for weights in tries
            if weights[number] and sum(weights) == weights[number]
        }
        if self.settings.model == "blend":
            self._set({f"{name}_weight": w for name, w in zip(PARTS, best, strict=True)})
        words = ", ".join(f"{n}={v}" for n, v in asdict(self.settings).items() if n in PRIORS)
        figures_alone = ", ".join(f"{name} {ndcg:.4f}" for name, ndcg in alone.items())
        log.info("On held-out edges: %s; ndcg@20 of each part alone: %s.", words, figures_alone)
        neighbors, low_pass, learned, transitions = best
        self.fitted = Fitted(
            self.fitted.rows if neighbors else None,
            self.fitted.spectrum if low_pass else None,
            self.fitted.learned if learned else None,
            self.fitted.following if transitions else None,
        )

    def _variants(self, part: Embeddings, scale: list[Tensor]) -> list[float]:
        """NDCG of the part with each scale [items] of its scores."""

        def scores(users: Tensor) -> Iterator[Tensor]:
            plain = part.score(users, own(self._kept, users))
            for factor in scale:
                yield plain * factor

        return self._ndcg(scores)

    def _ndcg(self, scores: Scores) -> list[float]:
        self._tries += 1
        self._progress(self._step, self._tries, TRIES, None)
        return [f["ndcg@20"] for f in rankings(scores, self._kept, self._held_out, most=USERS)]

    def _open(self, name: str, grid: tuple[float, ...]) -> tuple[float, ...]:
        """The grid, or what is set."""
        value = getattr(self.settings, name)
        return grid if value is None else (value,)

    def _set(self, values: dict[str, float]) -> None:
        self.settings = self.settings.filled(values)


def _better(tried: list[_Trained]) -> _Trained:
    return max(tried, key=lambda t: t.ndcg)


def _best(tried: dict[tuple[float, ...], float]) -> tuple[float, ...]:
    return max(tried, key=lambda values: tried[values])


def _distinct(tries: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Without those that rank alike: all zero, or a multiple of one before."""
    kept: dict[tuple[float, ...], tuple[float, ...]] = {}
    for weights in tries:
        total = sum(weights)
        if total:
            kept.setdefault(tuple(round(w / total, 6) for w in weights), weights)
    return list(kept.values())
