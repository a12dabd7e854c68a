"""The contract of a part of the model, and what all parts share.

A part is fitted on a graph, goes on from a state, gives embeddings, and says what is to be tried.
Each part is one file, with the part's settings and grid beside it. A new part also needs a place in
hyperparameters.py (MODELS), in how new items are folded in (embedding/item_fold_in.py), and in how
the scales of all parts become one set of tables (blend.py, embedding/blend.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from trainer.embedding.embeddings import Embeddings
from trainer.graph.interactions import InteractionGraph
from trainer.model.progress import Progress, quiet
from trainer.model.setting import setting, settings_of

State = dict[str, Tensor]  # by name: what the next training goes on from
Values = tuple[float | None, ...]


@dataclass(frozen=True)
class CommonSettings:
    """What all parts share. None stands for what the held-out edges say."""

    model: Literal["blend", "lightgcn", "gcn"] = "blend"
    loss: Literal["softmax", "bpr", "mse"] | None = None  # None: the model's own
    device: str = "auto"
    seed: int = 0
    dampening: float | None = setting(
        "1: the strength of an edge is the logarithm of 1 + its weight; 0: it is the weight.",
        usual=0.0, switch=True, before=0.0,
    )  # fmt: skip
    recency: float | None = setting(
        "An own edge counts (1 + age)^-recency, age the number of the user's newer edges; 0: old "
        "and new edges count alike.",
        usual=0.75, least=0, most=4,
    )  # fmt: skip


S = TypeVar("S", bound=CommonSettings, contravariant=True)


@dataclass(frozen=True)
class Round:
    """A step of a search: these settings are varied together, and the best values are kept.

    tries: values of the `names`; what the user has set stays as it is. meanwhile: settings for this
    round alone, such as fewer steps, so that the round is quick.
    """

    names: tuple[str, ...]
    tries: Sequence[Values]
    meanwhile: dict[str, Any] = field(default_factory=dict)


class Fitted(ABC, Generic[S]):
    """What a part has learned from a graph. Settings of the scores may differ from the fit's."""

    epochs: int | None = None  # steps for a training on all edges, where the fit has found that out

    @abstractmethod
    def serves(self, settings: S) -> bool:
        """Whether these settings need no other fit."""

    @abstractmethod
    def embeddings(self, graph: InteractionGraph, settings: S) -> Embeddings:
        """The part on its own over a graph, on the CPU."""

    def state(self, settings: S) -> State:  # noqa: ARG002
        """What the next training can go on from, on the CPU."""
        return {}


class Part(ABC, Generic[S]):
    """A part of the model."""

    name: ClassVar[str]
    kind: ClassVar[type[CommonSettings]]  # the part's settings
    needed: ClassVar[tuple[str, ...]] = ()  # settings that a model needs to score and to fold in
    tables: ClassVar[tuple[str, ...]] = ()  # tensors of a snapshot that has the part
    variables: ClassVar[tuple[str, ...]] = ()  # settings of the part that are no lines of a file
    loss: ClassVar[Literal["softmax", "mse"]] = "softmax"  # where none is set
    uses_order: ClassVar[bool] = False  # lives of the order of a user's edges
    uses_weights: ClassVar[bool] = False  # of an edge, also where the edge has no strength
    quick: ClassVar[bool] = False  # is made within seconds
    goes_on: ClassVar[bool] = True  # can be trained on from a state
    stops_early: ClassVar[bool] = False  # needs held-out edges to see when to stop

    @property
    def weight(self) -> str:
        """Name of the setting of the part's weight in the blend."""
        return f"{self.name}_weight"

    @property
    def names(self) -> set[str]:
        """Names of the part's settings."""
        return {*settings_of(self.kind), *self.variables}

    @property
    def open(self) -> set[str]:
        """Names of the settings that can be chosen."""
        return {name for name, of in settings_of(self.kind).items() if of.usual is not None}

    def unread(self, settings: S) -> dict[str, str]:  # noqa: ARG002
        """Names of the part's settings that change nothing beside the other ones, and why.

        The reason completes a sentence after "as": "the loss is bpr".
        """
        return {}

    @abstractmethod
    def fit(
        self,
        graph: InteractionGraph,
        settings: S,
        progress: Progress = quiet,
        state: State | None = None,
        share: int = 1,
        held_out: InteractionGraph | None = None,
    ) -> Fitted[S]:
        """Learn from a graph, on whichever thread.

        Of the parts of a model, one alone may draw from torch's own generator of random numbers:
        else what is drawn would hang on which thread is quicker.

        Args:
            settings: with nothing open.
            state: of the last training, rows in the graph's numbering; other parts' too.
            share: with a state, one in so many of the steps is done.
            held_out: edges by which to see when to stop.

        Raises:
            Diverged, TrainingStopped, DeviceMissing: as `train`, of a part that is trained by
                gradients.
        """

    def grid(self, settings: S) -> Sequence[Round]:  # noqa: ARG002
        """What is tried, one round after another; `settings` with what the user has set."""
        return ()

    def without_order(self, settings: S) -> Round | None:  # noqa: ARG002
        """Settings by which the part tells what it is worth without the order of the edges."""
        return None

    def fits(self, state: dict[str, Any], settings: S) -> bool:  # noqa: ARG002
        """Whether a training can go on from a model of the settings in `state`, by name.

        Args:
            settings: as `for_graph` of hyperparameters.py gives them; None leaves a value open.
        """
        return self.goes_on


def given(value: float | None, grid: Sequence[float]) -> Sequence[float]:
    """The grid, or what the user has set."""
    return grid if value is None else (value,)
