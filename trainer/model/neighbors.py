"""Neighbours: two hops of the graph, from an item over users to items, without training.

R [users, items] holds the strengths of the edges, D_u and D_i its row and column sums. The score of
item j is the sum over the user's own items i of R_ui d_i^-p ((R^T D_u^-a R)_ij d_j^-q)^e, without
the diagonal. The exponent e of each entry is Turbo-CF's (Park et al., SIGIR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse as sp

from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.part import Part, Round, State, given
from trainer.model.progress import Progress, quiet
from trainer.model.rows import FittedRows, Rows, RowSettings, largest_rows
from trainer.model.setting import setting

USER_POWERS = (1.0, 0.7, 0.4, 0.1)
OWN_POWERS = (0.3, 0.5, 0.7, 0.9, 1.1)
ITEM_POWERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
PAIR_POWERS = (1.0, 0.7, 0.5)
FEWER = 128  # entries of a row while exponents are chosen; with 64 Gowalla would choose worse


@dataclass(frozen=True)
class NeighborsSettings(RowSettings):
    """p, a, q and e of the formula are own_power, user_power, item_power and pair_power."""

    neighbors_weight: float | None = setting("Neighbours: weight in the blend.", usual=1.0, least=0)
    neighbors_user_power: float | None = setting(
        "Neighbours: exponent of the degree of the users between two items.",
        usual=0.7, least=0, most=2,
    )  # fmt: skip
    neighbors_own_power: float | None = setting(
        "Neighbours: exponent of the degree of the user's own items.", usual=0.7, least=0, most=2
    )
    neighbors_item_power: float | None = setting(
        "Neighbours: exponent of the degree of the recommended item.", usual=0.2, least=0, most=2
    )
    neighbors_pair_power: float | None = setting(
        "Neighbours: exponent of what joins two items; below 1 many weak paths count more.",
        usual=1.0, above=0, most=2, before=1.0,
    )  # fmt: skip


class Neighbors(Part[NeighborsSettings]):
    """Neighbours as a part of the blend."""

    name = "neighbors"
    kind = NeighborsSettings
    needed = ("neighbors_user_power", "neighbors_own_power", "neighbors_item_power")
    tables = ("neighbors", "similarities")
    quick = True

    def fit(
        self,
        graph: InteractionGraph,
        settings: NeighborsSettings,
        progress: Progress = quiet,  # noqa: ARG002
        state: State | None = None,  # noqa: ARG002
        share: int = 1,  # noqa: ARG002
        held_out: InteractionGraph | None = None,  # noqa: ARG002
    ) -> FittedRows[NeighborsSettings]:
        """Make the rows: nothing is trained, so there is nothing to go on from."""
        user, item = settings.neighbors_user_power or 0.0, settings.neighbors_item_power or 0.0
        rows = neighbors(graph, user, 0.0, item, settings.neighbors_kept)
        made_with = ("neighbors_user_power", "neighbors_item_power", "neighbors_kept")
        values = {name: getattr(settings, name) for name in made_with}
        return FittedRows(rows, values, "neighbors_own_power", "neighbors_pair_power")

    def grid(self, settings: NeighborsSettings) -> Sequence[Round]:
        """The users' exponent, the item's, and the pairs', each with all exponents of own items."""
        own = given(settings.neighbors_own_power, OWN_POWERS)
        few = {"neighbors_kept": min(FEWER, settings.neighbors_kept)}
        return [
            Round((name, "neighbors_own_power"), list(product(powers, own)), meanwhile)
            for name, powers, meanwhile in (
                ("neighbors_user_power", USER_POWERS, few),
                ("neighbors_item_power", ITEM_POWERS, few),
                ("neighbors_pair_power", PAIR_POWERS, {}),  # needs no new rows
            )
        ]


def neighbors(
    graph: InteractionGraph, user_power: float, own_power: float, item_power: float, kept: int
) -> Rows:
    """The `kept` largest of each item's d_i^-p (R^T D_u^-a R)_ij d_j^-q, i != j.

    By scipy and not torch: torch 2.13's product of two sparse matrices on the CPU is twice as fast
    but never frees its result.

    Args:
        user_power, own_power, item_power: a, p, q.
    """
    degrees = graph.item_strengths
    shape = (graph.n_users, graph.n_items)
    starts = graph.starts.astype(np.int32)
    by_item = sp.csr_array((graph.strengths, graph.items, starts), shape).T.tocsr()
    scaled = graph.strengths * power(graph.user_strengths, -user_power)[graph.users]
    scaled = scaled * power(degrees, -item_power)[graph.items]
    by_user = sp.csr_array((scaled, graph.items, starts), shape)
    most = graph.ranks.sum(by_item.astype(bool) @ graph.user_degrees)
    lengths = np.minimum(most, graph.n_items)
    return largest_rows(
        lengths,
        lambda items: sp.csr_array(by_item[items] @ by_user),
        kept,
        power(degrees, -own_power),
        graph.ranks,
    )
