"""The learned part of the blend: next items where the order of edges counts, else LightGCN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from trainer.graph.interactions import InteractionGraph
from trainer.model import lightgcn, next_item
from trainer.model.learned_settings import LearnedSettings
from trainer.model.network import SOFTMAX
from trainer.model.part import Fitted, Part, Round, State, given
from trainer.model.progress import Progress, quiet
from trainer.model.setting import settings_of

# Settings that next items do not read.
LIGHTGCN = {name for name, of in settings_of(LearnedSettings).items() if of.lightgcn}
KINDS = (  # of LightGCN: temperature, negative_power, edge_drop: for sparse graphs, for dense ones
    (0.1, 0.5, 0.0),
    (0.2, 1.0, 0.3),
)
POWERS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
NEXT_POWERS = (0.0, 0.05, 0.1, 0.2)


class Learned(Part[LearnedSettings]):
    """The part of the blend that is trained by gradients."""

    name = "learned"
    kind = LearnedSettings
    needed = ("learned_power",)
    variables = ("loss", "epochs")

    def unread(self, settings: LearnedSettings) -> dict[str, str]:
        """Next items and each loss read other settings; a model by itself has no kinds."""
        made, loss = {}, settings.loss or self.loss
        if settings.learned_order and settings.predicts_next:
            made = dict.fromkeys(LIGHTGCN, "the learned part predicts next items")
        if loss != "softmax":
            made = dict.fromkeys((*SOFTMAX, "learned_order"), f"the loss is {loss}")
        if settings.model != "blend":
            alone = (self.weight, "learned_order")
            made |= dict.fromkeys(alone, f"STREAMGCN_MODEL is {settings.model}")
        return made

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
        """For LightGCN fewer steps may do better, and a third of them is enough to see which kind
        of graph this is."""
        if settings.predicts_next:
            powers = given(settings.learned_power, NEXT_POWERS)
            return [Round(("learned_power",), [(power,) for power in powers])]
        kinds = KINDS if (settings.loss or self.loss) == "softmax" else KINDS[:1]
        names = ("temperature", "negative_power", "edge_drop", "learned_power")
        powers = given(settings.learned_power, POWERS)
        third = max(1, (settings.epochs or lightgcn.EPOCHS) // 3)
        steps = [settings.epochs] if settings.epochs else [None, third]
        told_apart = [(*kind, p) for kind, p in product(kinds, powers)]
        return [
            Round(names, told_apart, {"epochs": third}),
            Round(("epochs", "learned_power"), list(product(steps, powers))),
        ]

    def fits(self, state: dict[str, object], settings: LearnedSettings) -> bool:
        """A training does not go on from another kind of learned part, another size or another
        loss."""
        before = replace(settings, learned_order=1.0 if state.get("learned_order") else 0.0)
        wanted = before if settings.learned_order is None else settings
        if wanted.predicts_next != before.predicts_next:
            return False
        if (state.get("loss") or self.loss) != (settings.loss or self.loss):
            return False
        sizes = ("dim",) if wanted.predicts_next else ("dim", "layers")
        return all(state.get(name) == getattr(settings, name) for name in sizes)
