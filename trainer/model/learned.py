"""The learned part of the blend: next items where the order of edges counts, else LightGCN."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from trainer.graph.interactions import InteractionGraph
from trainer.model import lightgcn, next_item
from trainer.model.learned_settings import LearnedSettings
from trainer.model.part import Fitted, Part, Round, State, given
from trainer.model.progress import Progress, quiet

KINDS = (  # of LightGCN: temperature, negative_power, edge_drop: for sparse graphs, for dense ones
    (0.1, 0.5, 0.0),
    (0.2, 1.0, 0.3),
)
POWERS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
NEXT_TEMPERATURE = 0.15
NEXT_POWERS = (0.0, 0.05, 0.1, 0.2)


class Learned(Part[LearnedSettings]):
    """The part of the blend that is trained by gradients."""

    name = "learned"
    kind = LearnedSettings
    needed = ("learned_power",)

    def fit(
        self,
        graph: InteractionGraph,
        settings: LearnedSettings,
        progress: Progress = quiet,
        state: State | None = None,
        share: int = 1,
        held_out: InteractionGraph | None = None,  # noqa: ARG002
    ) -> Fitted[LearnedSettings]:
        """Train, or train on from a state's tables."""
        if settings.predicts_next:
            return next_item.fit(graph, settings, progress, state, share)
        return lightgcn.fit(graph, settings, progress, state, share)

    def grid(self, settings: LearnedSettings) -> Sequence[Round]:
        """Fewer steps may do better. Of LightGCN a third of the steps tells kinds of graphs
        apart."""
        last = ("epochs", "learned_power")
        if settings.predicts_next:
            steps = _steps(settings, next_item.PASSES)
            powers = given(settings.learned_power, NEXT_POWERS)
            tries = [(NEXT_TEMPERATURE, n, p) for n, p in product(steps, powers)]
            return [Round(("temperature", *last), tries)]
        kinds = KINDS if (settings.loss or self.loss) == "softmax" else KINDS[:1]
        names = ("temperature", "negative_power", "edge_drop", "learned_power")
        powers = given(settings.learned_power, POWERS)
        third = max(1, (settings.epochs or lightgcn.EPOCHS) // 3)
        told_apart = [(*kind, p) for kind, p in product(kinds, powers)]
        return [
            Round(names, told_apart, {"epochs": third}),
            Round(last, list(product(_steps(settings, lightgcn.EPOCHS), powers))),
        ]

    def fits(self, state: dict[str, object], settings: LearnedSettings) -> bool:
        """Tables of another size or of another loss are none to go on from."""
        return all(state.get(n) == getattr(settings, n) for n in ("dim", "layers", "loss"))


def _steps(settings: LearnedSettings, usual: int) -> Sequence[int | None]:
    """The epochs that are set; else the usual number, and a third of it."""
    return [settings.epochs] if settings.epochs else [None, max(1, usual // 3)]
