"""What is trained and how; plain values, so that reading the settings loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

MOST_PAIRS = 200_000_000  # of edges of one user near each other; half a minute on one core
MIN_REACH = 10


@dataclass(frozen=True)
class Hyperparameters:
    """What is trained and how. None stands for what the held-out edges say (choose.py)."""

    model: Literal["blend", "lightgcn", "gcn"] = "blend"
    loss: Literal["softmax", "bpr", "mse"] | None = None  # None: the model's own
    device: str = "auto"
    seed: int = 0

    dampening: float | None = None  # 1: an edge's strength is the logarithm of 1 + its weight

    # an own edge counts (1 + age)^-recency, age the number of the user's newer edges; 0: order is
    # not used
    recency: float | None = None

    # transitions: d_i^-own T_ij d_j^-item; an edge n places further counts n^-decay, one before
    # `backward` as much
    transitions_weight: float | None = None
    transitions_decay: float | None = None
    transitions_backward: float | None = None
    transitions_own_power: float | None = None
    transitions_item_power: float | None = None
    transitions_reach: int = 50  # edges between two of a user at most; fewer in large graphs

    # neighbours: d_i^-own (R^T D_u^-user R)_ij d_j^-item
    neighbors_weight: float | None = None
    neighbors_user_power: float | None = None
    neighbors_own_power: float | None = None
    neighbors_item_power: float | None = None
    neighbors_kept: int = 256  # entries of a row, of neighbours and transitions together

    # low pass: d_i^-power V s^2 / (s^2 + damping) V^T d_j^power, U s V^T = D_u^-c R D_i^-c
    low_pass_weight: float | None = None
    low_pass_normalization: float | None = None  # c
    low_pass_power: float | None = None
    low_pass_damping: float | None = None
    vectors: int | None = None

    # learned: LightGCN
    learned_weight: float | None = None
    learned_power: float | None = None  # its scores times item degree ** this
    dim: int = 128
    layers: int = 3
    epochs: int | None = None  # full-batch steps; None: 150, of gcn 200
    temperature: float | None = None
    negatives: int = 1_024  # items sampled in each step, shared by all users
    negative_power: float | None = None  # sampled in proportion to degree ** this
    edge_drop: float | None = None  # share of the edges left out of the graph in a step

    @property
    def objective(self) -> Literal["softmax", "bpr", "mse"]:
        """The loss that is asked for, or the model's own."""
        return self.loss or ("mse" if self.model == "gcn" else "softmax")

    def missing(self) -> set[str]:
        """Names of the values that the held-out edges are to choose."""
        if self.model == "gcn":
            return set()
        names = {name for name, value in asdict(self).items() if value is None}
        names -= {"loss", "epochs"}
        if self.model == "lightgcn":
            names -= {"learned_weight", "recency"}
        if self.model == "lightgcn" or self.transitions_weight == 0:
            names -= {n for n in names if n.startswith("transitions_")}
        if self.model == "lightgcn" or self.neighbors_weight == 0:
            names -= {n for n in names if n.startswith("neighbors_")}
        if self.model == "lightgcn" or self.low_pass_weight == 0:
            names -= {n for n in names if n.startswith("low_pass_")} | {"vectors"}
        if self.model == "blend" and self.learned_weight == 0:
            names -= {"learned_power", "temperature", "negative_power", "edge_drop"}
        return names

    def for_graph(self, edges: int, timed: bool) -> Self:
        """The same as far as a graph's size and times allow.

        Args:
            edges: so many, the pairs of which must not take minutes.
            timed: whether the order of any user's edges says something.
        """
        reach = max(MIN_REACH, min(self.transitions_reach, MOST_PAIRS // max(1, 2 * edges)))
        made = replace(self, transitions_reach=reach)
        return made if timed else made.without_time()

    def without_time(self) -> Self:
        """The same where the order of a user's edges says nothing."""
        return replace(self, recency=0.0, transitions_weight=0.0)

    def filled(self, chosen: dict[str, float]) -> Self:
        """The same with what was `chosen` where nothing is set."""
        values: dict[str, Any] = {n: chosen[n] for n in self.missing() & chosen.keys()}
        if "vectors" in values:
            values["vectors"] = int(values["vectors"])
        return replace(self, **values)
