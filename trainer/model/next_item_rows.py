"""Rows of items that no step has trained, from the rows of the items beside them.

As embedding/next_item_fold_in.py has them: an item is scored by the states at which it was the next
item, and brings to a state what came next.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from trainer.model.sequences import Sequences

EDGES = 4_096  # at a time, so that memory does not grow with the graph


@torch.no_grad()
def rows_beside(
    edges: Sequences, incoming: Tensor, outgoing: Tensor, which: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of both tables for the items `which`, as long as the others' rows are in the mean.

    Args:
        incoming, outgoing: float32 [items, dim]; rows of 0 for items without any.
        which: bool [items].

    Returns:
        float32 [n, dim], twice; 0 where no item with a row is beside an item.
    """
    numbers = which.cumsum(0) - 1
    units = normalize(outgoing)
    brings, scored = torch.zeros(2, int(which.sum()), incoming.shape[1])
    items = edges.items[edges.liked]
    for liked in torch.split(which[items].nonzero()[:, 0], EDGES):
        for made, table, beside in (
            (brings, units, edges.after(liked)),
            (scored, incoming, edges.before(liked)),
        ):
            summed = embedding_bag(beside[0], table, per_sample_weights=beside[1], mode="sum")
            each = summed if table is units else normalize(summed)
            made.index_add_(0, numbers[items[liked]], each)
    return _usual(incoming) * normalize(brings), _usual(outgoing) * normalize(scored)


def _usual(table: Tensor) -> Tensor:
    """Mean length of the rows that are not 0."""
    lengths = torch.linalg.vector_norm(table, dim=1)
    usual: Tensor = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    return usual
