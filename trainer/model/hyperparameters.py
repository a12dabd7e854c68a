"""What is trained and how: the settings of all parts in one, and the parts of each model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from trainer.model.gcn import Gcn
from trainer.model.learned import Learned
from trainer.model.learned_settings import LearnedSettings
from trainer.model.low_pass import LowPass, LowPassSettings
from trainer.model.neighbors import Neighbors, NeighborsSettings
from trainer.model.part import Part
from trainer.model.setting import settings_of
from trainer.model.transitions import Transitions, TransitionsSettings

MOST_PAIRS = 200_000_000  # of edges of one user near each other; half a minute on one core
MIN_REACH = 10
NO_TIMES = "the edges have no times that tell their order"


@dataclass(frozen=True)
class Hyperparameters(TransitionsSettings, NeighborsSettings, LowPassSettings, LearnedSettings):
    """What is trained and how. None stands for what the held-out edges say (choose.py).

    The names are those in a manifest and in a file of STREAMGCN_MODEL_FILE.
    """

    @property
    def objective(self) -> str:
        """The loss that is asked for, or the model's own."""
        return self.loss or MODELS[self.model][0].loss

    @property
    def parts(self) -> tuple[AnyPart, ...]:
        """The parts of the model that are in use: those without a weight of 0."""
        return tuple(part for part in MODELS[self.model] if self.weight(part) != 0)

    def weight(self, part: AnyPart) -> float | None:
        """The weight of a part; None while it is not chosen, 1 for a model's only part."""
        value: float | None = 1.0 if self.one_part else getattr(self, part.weight)
        return value

    @property
    def one_part(self) -> bool:
        """Whether the model is one part, of which there is no weight and no recency to choose."""
        return len(MODELS[self.model]) == 1

    def missing(self) -> set[str]:
        """Names of the values that the held-out edges are to choose."""
        read = {name for part in self.parts for name in part.open - part.unread(self).keys()}
        names = {name for name in read if getattr(self, name) is None}
        return names - {"recency"} if self.one_part else names

    def unread(self, timed: bool = True) -> dict[str, str]:
        """Names of the settings that no part of the model reads, and why, as in `Part.unread`.

        Args:
            timed: whether the order of any user's edges says something.
        """
        read: set[str] = set()
        why: dict[str, dict[str, None]] = {}  # the reasons in their order, each once
        for part in MODELS[self.model]:
            left = part.unread(self)
            if part.uses_order and not timed:
                left = dict.fromkeys(part.names, NO_TIMES)
            if self.weight(part) == 0:
                left = dict.fromkeys(part.names - {part.weight}, f"{part.weight} is 0")
            read |= part.names - left.keys()
            for name, reason in left.items():
                why.setdefault(name, {})[reason] = None
        if not timed and "recency" in read:
            read.remove("recency")
            why["recency"] = {NO_TIMES: None}
        elsewhere = {name for part in MODELS["blend"] for name in part.names} - read
        return {
            name: " and ".join(why.get(name, (f"STREAMGCN_MODEL is {self.model}",)))
            for name in sorted(elsewhere)
        }

    @property
    def needs_held_out(self) -> bool:
        """Whether a training must hold edges out, to choose or to see when to stop."""
        return bool(self.missing()) or any(part.stops_early for part in self.parts)

    def for_graph(self, edges: int, timed: bool) -> Self:
        """The same as far as a graph's size and times allow.

        Args:
            edges: so many, the pairs of which must not take minutes.
            timed: whether the order of any user's edges says something.
        """
        reach = max(MIN_REACH, min(self.transitions_reach, MOST_PAIRS // max(1, 2 * edges)))
        made = replace(self, transitions_reach=reach)
        if not timed:
            return made.without_time()
        return made if made.recency is None else made._with_order()

    def without_time(self) -> Self:
        """The same where the order of a user's edges says nothing."""
        off: dict[str, Any] = {part.weight: 0.0 for part in MODELS["blend"] if part.uses_order}
        return replace(self, recency=0.0, **off)._with_order()

    def with_time(self) -> Self:
        """The same where the order of a user's edges is known to say something."""
        return self.filled({"learned_order": float(replace(self, recency=None).predicts_next)})

    def _with_order(self) -> Self:
        """The same with `learned_order`, which follows from recency where nothing else tells."""
        return self.filled({"learned_order": float(self.predicts_next)})

    def quick(self) -> Self:
        """The same, as `for_graph` gave it, with one part that is made within seconds; where order
        says something, one that uses it."""
        quick = [part for part in self.parts if part.quick]
        best = max(quick, key=lambda part: part.uses_order, default=None)
        others = (part for part in self.parts if best is not None and part is not best)
        return self.filled({part.weight: 0.0 for part in others})

    def usual(self) -> Self:
        """The same with the usual value of each number that is neither set nor chosen."""
        made = self._with_order()
        return made.filled(NEXT_USUAL if made.predicts_next else USUAL)

    def filled(self, chosen: dict[str, float]) -> Self:
        """The same with what was `chosen` where nothing is set."""
        values: dict[str, Any] = {n: chosen[n] for n in self.missing() & chosen.keys()}
        if "vectors" in values:
            values["vectors"] = int(values["vectors"])
        return replace(self, **values)


AnyPart = Part[Hyperparameters]
# The order is that of the `scales` in a snapshot. While numbers are chosen, the last part that does
# not use order has a thread to itself.
MODELS: dict[str, tuple[AnyPart, ...]] = {
    "blend": (Neighbors(), LowPass(), Learned(), Transitions()),
    "lightgcn": (Learned(),),
    "gcn": (Gcn(),),
}
SETTINGS = settings_of(Hyperparameters)
USUAL: dict[str, float] = {n: of.usual for n, of in SETTINGS.items() if of.usual is not None}
NEXT_USUAL = USUAL | {n: of.usual_next for n, of in SETTINGS.items() if of.usual_next is not None}
