"""Item-side fold-in of the learned part that predicts next items.

With state_v the state of a user v when v took the new item j, as in model/next_item.py, and k how
many items later v took another item i:

    outgoing_j = unit(sum_v unit(state_v)): the states at which j was the next item;
    incoming_j = c unit(sum_v sum_i FURTHER^k unit(outgoing_i)): the liked items that came next
        after j, each with the chance to be the wanted one in the training; c is the mean length of
        the incoming rows of these users' items.

In place of a training: the gradient of the softmax pulls both rows in these directions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own

FURTHER = 0.5  # chance to skip an item: wanted is the next one, or in 1/4 the second, and so on


class Pairs(NamedTuple):
    """Each edge of a new item with each own edge of the same user.

    edges: int64 [pairs], places in the own edges, those of one edge of a new item after another;
    lengths: int64 [edges of new items], how many each has; later: int64 [pairs], how many items
    later the user took the new item, negative where it came before, 0 where order says nothing.
    """

    edges: Tensor
    lengths: Tensor
    later: Tensor

    @classmethod
    def of(cls, own: Own, touched: Own) -> Pairs:
        """The pairs; the arguments are those of item_fold_in.fold_in."""
        lengths = own.starts.diff()[touched.items]
        begins = own.starts[:-1][touched.items] - (lengths.cumsum(0) - lengths)
        edges = torch.arange(int(lengths.sum()), device=lengths.device)
        edges += begins.repeat_interleave(lengths)
        if own.ages is None or touched.ages is None:
            return cls(edges, lengths, torch.zeros_like(edges))
        return cls(edges, lengths, own.ages[edges] - touched.ages.repeat_interleave(lengths))


def rows_of_new_items(
    embeddings: BlendEmbeddings, own: Own, touched: Own, pairs: Pairs
) -> tuple[Tensor, Tensor]:
    """What an edge to each new item brings, and what it is scored by, at length 1.

    Args:
        embeddings: whose learned part predicts next items.
        own, touched: as item_fold_in.fold_in takes them.

    Returns:
        float32 [new, dim], twice.
    """
    later, first = pairs.later, embeddings.vectors
    # Of a catalogue of a million items these users have a few: only their rows are looked at.
    known, places = torch.unique(own.items, return_inverse=True)
    items = places[pairs.edges]
    incoming = embeddings.tensors["incoming"][known, first:]
    outgoing = functional.normalize(embeddings.outgoing[known, first:], dim=1)

    def summed(table: Tensor, weights: Tensor) -> Tensor:
        """Sum of an item table's rows by weight [pairs] for each edge of a new item."""
        begins = pairs.lengths.cumsum(0) - pairs.lengths
        return functional.embedding_bag(
            items, table, begins, mode="sum", per_sample_weights=weights.to(table.dtype)
        )

    def of_items(rows: Tensor) -> Tensor:
        """The unit of the sum over the edges of each new item."""
        made = rows.new_zeros(len(touched.starts) - 1, rows.shape[1])
        return functional.normalize(made.index_add_(0, touched.rows(), rows), dim=1)

    strengths = own.strengths[pairs.edges]
    faded = strengths * later.clamp(min=1) ** -embeddings.recency
    states = functional.normalize(summed(incoming, faded * (later >= 0)), dim=1)
    next_ones = (later < 0) & (strengths > 0)
    followed = summed(outgoing, FURTHER ** -later.clamp(max=0) * next_ones)
    return usual_length(incoming) * of_items(followed), of_items(states)


def usual_length(table: Tensor) -> Tensor:
    """Mean length of the rows of a table [rows, dim] that are not 0; a scalar, 0 without any."""
    lengths = torch.linalg.vector_norm(table, dim=1)
    usual: Tensor = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    return usual
