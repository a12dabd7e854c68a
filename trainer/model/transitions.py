"""What users take after an item: a directed two-hop convolution over users' edges in their order.

    T_ij = sum over users of k(n)   if the user's edge to j is the n-th after the one to i,
                          b k(n)   if it is the n-th before;   k(n) = n^-t, n at most `reach`

The score of item j is the sum over the user's own items i of their recency times
d_i^-p T_ij d_j^-q, d the items' sums of strengths. Edges without strength, and users whose edges
all have one time, add nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse as sp

from trainer.graph.arrays import Float32s, Int64s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.part import Part, Round, State, given
from trainer.model.progress import Progress, quiet
from trainer.model.rows import FittedRows, Rows, RowSettings, largest_rows
from trainer.model.setting import setting

PAIRS = 2_500_000  # in a thread's memory at a time
RECENCIES = (0.0, 0.5, 0.75, 1.0, 1.25)
DECAYS = (0.3, 0.5, 0.8)
BACKWARDS = (0.2, 0.5)  # what comes before counts less than what comes after
OWN_POWERS = (0.3, 0.5, 0.7, 0.9)
ITEM_POWERS = (0.0, 0.1, 0.2, 0.35)


@dataclass(frozen=True)
class TransitionsSettings(RowSettings):
    """t, b, p and q of the formula are decay, backward, own_power and item_power."""

    transitions_weight: float | None = setting(
        "Transitions: weight in the blend.", usual=1.0, least=0
    )
    transitions_decay: float | None = setting(
        "Transitions: an edge that is n places further counts n^-decay.", usual=0.5, least=0, most=8
    )
    transitions_backward: float | None = setting(
        "Transitions: an edge that comes before counts as much as so many that come after.",
        usual=0.2, least=0, most=1,
    )  # fmt: skip
    transitions_own_power: float | None = setting(
        "Transitions: exponent of the degree of the user's own items.", usual=0.5, least=0, most=2
    )
    transitions_item_power: float | None = setting(
        "Transitions: exponent of the degree of the recommended item.", usual=0.1, least=0, most=2
    )
    transitions_reach: int = setting(
        "Transitions: edges between two of a user at most; fewer in large graphs.", 50, least=1
    )


class Transitions(Part[TransitionsSettings]):
    """Transitions as a part of the blend; they tell of what use the order of the edges is."""

    name = "transitions"
    kind = TransitionsSettings
    needed = ("recency", "transitions_decay", "transitions_backward",
              "transitions_own_power", "transitions_item_power")  # fmt: skip
    uses_order = True
    tables = ("neighbors", "similarities")
    quick = True

    def fit(
        self,
        graph: InteractionGraph,
        settings: TransitionsSettings,
        progress: Progress = quiet,  # noqa: ARG002
        state: State | None = None,  # noqa: ARG002
        share: int = 1,  # noqa: ARG002
        held_out: InteractionGraph | None = None,  # noqa: ARG002
    ) -> FittedRows[TransitionsSettings]:
        """Make the rows: nothing is trained, so there is nothing to go on from."""
        numbers = (
            settings.transitions_decay,
            settings.transitions_backward,
            settings.transitions_item_power,
        )
        t, b, q = (value or 0.0 for value in numbers)
        reach, kept = settings.transitions_reach, settings.neighbors_kept
        names = ("transitions_decay", "transitions_backward", "transitions_item_power",
                 "transitions_reach", "neighbors_kept")  # fmt: skip
        values = {name: getattr(settings, name) for name in names}
        rows = transitions(graph, t, b, 0.0, q, reach, kept)
        return FittedRows(rows, values, "transitions_own_power")

    def grid(self, settings: TransitionsSettings) -> Sequence[Round]:
        """What costs no new rows is varied with the first and the last of the others."""
        own = given(settings.transitions_own_power, OWN_POWERS)
        return [
            Round(("recency", "transitions_own_power"), list(product(RECENCIES, own))),
            Round(("transitions_decay",), [(t,) for t in DECAYS]),
            Round(("transitions_backward",), [(b,) for b in BACKWARDS]),
            Round(
                ("transitions_item_power", "transitions_own_power"), list(product(ITEM_POWERS, own))
            ),
        ]

    def without_order(self, settings: TransitionsSettings) -> Round:
        """Before and after count alike, and so do old edges and new ones."""
        names = ("recency", "transitions_backward", "transitions_own_power")
        own = given(settings.transitions_own_power, OWN_POWERS)
        return Round(names, [(0.0, 1.0, p) for p in own])


def transitions(
    graph: InteractionGraph,
    decay: float,
    backward: float,
    own_power: float,
    item_power: float,
    reach: int,
    kept: int,
) -> Rows:
    """The `kept` largest of each item's d_i^-p T_ij d_j^-q, i != j.

    Args:
        decay, backward, own_power, item_power: t, b, p, q.
        reach: n at most.
    """
    degrees = graph.item_strengths
    pairs = _Pairs(graph, kernel(decay, backward, reach), power(degrees, -item_power))
    lengths = np.minimum(graph.item_degrees * 2 * reach, graph.n_items)
    return largest_rows(lengths, pairs.rows, kept, power(degrees, -own_power), graph.ranks)


def kernel(decay: float, backward: float, reach: int) -> Float32s:
    """What a pair adds, float32 [2 * reach], at distances -reach to -1, then 1 to reach."""
    near = np.arange(1, reach + 1, dtype=np.float64) ** -decay
    return np.concatenate([backward * near[::-1], near]).astype(np.float32)


class _Pairs:
    """All users' edges in their order, from which rows of T are made."""

    def __init__(self, graph: InteractionGraph, weights: Float32s, scale: Float32s) -> None:
        """Args:
        weights: of the distances, as `kernel` gives them.
        scale: float32 [items], by which each column is multiplied.
        """
        order = graph.by_time()
        order = order[graph.timed[graph.users[order]]]
        self._users, self._items = graph.users[order], graph.items[order]
        self._counts = graph.strengths[order] > 0
        self._by_item = np.argsort(self._items, kind="stable")
        degrees = np.bincount(self._items, minlength=graph.n_items)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
        self._weights, self._scale = weights, scale
        edges = np.bincount(self._users, minlength=graph.n_users)
        self._ends = np.cumsum(edges)  # of each user
        self._begins = self._ends - edges
        reach = len(weights) // 2
        self._distances = np.delete(np.arange(-reach, reach + 1), reach)

    def rows(self, items: Int64s) -> sp.csr_array:
        """The rows of T of these items, sparse float32 [block, items]."""
        lengths = self._starts[items + 1] - self._starts[items]
        begins = self._starts[items] - np.concatenate([[0], np.cumsum(lengths)[:-1]])
        at = self._by_item[np.arange(lengths.sum()) + np.repeat(begins, lengths)]
        row_ends = np.cumsum(lengths)
        made = sp.csr_array((len(items), len(self._scale)), dtype=np.float32)
        step = max(1, PAIRS // len(self._distances))
        for begin in range(0, len(at), step):
            edges = at[begin : begin + step]
            ends = (row_ends - begin).clip(0, len(edges))
            made = made + _sums(ends) @ self._beside(edges)
        return made

    def _beside(self, at: Int64s) -> sp.csr_array:
        """What the edges beside each of these edges add, sparse float32 [edges, items]."""
        others = at[:, None] + self._distances
        users = self._users[at, None]
        inside = (others >= self._begins[users]) & (others < self._ends[users])
        inside &= self._counts[at, None]
        inside &= self._counts.take(others, mode="clip")
        columns = self._items[others[inside]]
        values = np.broadcast_to(self._weights, others.shape)[inside] * self._scale[columns]
        starts = np.append(0, inside.sum(1).cumsum())
        return sp.csr_array((values, columns, starts), (len(at), len(self._scale)))


def _sums(ends: Int64s) -> sp.csr_array:
    """The matrix that adds up rows: its row k has ones from ends[k - 1] up to ends[k]; sparse
    float32 [n, ends[-1]]."""
    ones = np.ones(ends[-1], np.float32)
    return sp.csr_array((ones, np.arange(ends[-1]), np.append(0, ends)), (len(ends), ends[-1]))
