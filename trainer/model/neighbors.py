"""Neighbours: two hops of the graph, from an item over users to items, without training.

R [users, items] holds the strengths of the edges, D_u and D_i its row and column sums. The score of
item j is the sum over the user's own items i of R_ui d_i^-p (R^T D_u^-a R)_ij d_j^-q, without the
diagonal.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.rows import Rows, largest_rows


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
    starts = graph.row_starts().astype(np.int32)
    by_item = sp.csr_array((graph.strengths, graph.items, starts), shape).T.tocsr()
    scaled = graph.strengths * power(graph.user_strengths, -user_power)[graph.users]
    scaled = scaled * power(degrees, -item_power)[graph.items]
    by_user = sp.csr_array((scaled, graph.items, starts), shape)
    lengths = np.minimum(by_item.astype(bool) @ graph.user_degrees, graph.n_items)
    return largest_rows(
        lengths,
        lambda items: sp.csr_array(by_item[items] @ by_user),
        kept,
        power(degrees, -own_power),
    )
