"""Rows of items that no step has trained, from the rows of the items beside them.

As embedding/next_item_fold_in.py has them: an item is scored by the states at which it was the next
item, and brings to a state what came next. That file takes the few new items of a moment with all
edges of their users; here are all items of a graph, with the windows of the training. Steps are
those of the training too: edges without strength are no steps between two items, and a user whose
order says nothing has a before and an after as any other.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from trainer.embedding.next_item_fold_in import usual_length
from trainer.model.sequences import Sequences

EDGES = 4_096  # at a time, so that memory does not grow with the graph


@torch.no_grad()
def rows_beside(
    edges: Sequences, incoming: Tensor, outgoing: Tensor, which: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of both tables for the items `which`, whose length is the mean length of the others.

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
        rows = numbers[items[liked]]
        after, chances = edges.after(liked)
        brings.index_add_(0, rows, _sums(units, after, chances))
        before, weights = edges.before(liked)
        scored.index_add_(0, rows, normalize(_sums(incoming, before, weights)))
    brings, scored = edges.ranks.sum_tensor(brings), edges.ranks.sum_tensor(scored)
    return usual_length(incoming) * normalize(brings), usual_length(outgoing) * normalize(scored)


def _sums(table: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """Sums of the table's rows of items [n, k] by weights [n, k]; float32 [n, dim]."""
    return embedding_bag(items, table, per_sample_weights=weights, mode="sum")
