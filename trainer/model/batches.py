"""The batches of the learned part that predicts next items.

All ranks draw the same numbers, among the edges of all of them. Each looks its own edges up, and
tells the others what it has found: so each rank has the whole batch and makes the same step of it.
A batch has less than a megabyte however many items there are, the gradients that it leads to have
the size of both tables.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.embedding.next_item_fold_in import FURTHER
from trainer.model.sequences import WINDOW, Sequences
from trainer.ranks import Ranks


class Batch(NamedTuple):
    """Edges to learn from.

    items: int32 [size, WINDOW] and weights: float32 [size, WINDOW], of the states before the edges,
    as `Sequences.before` gives them; wanted: int32 [size], the items that are to be predicted;
    sampled: int32 [negatives], items drawn by popularity.
    """

    items: Tensor
    weights: Tensor
    wanted: Tensor
    sampled: Tensor


class Batches:
    """Draws from torch's own generator, which has the same seed on all ranks."""

    def __init__(self, edges: Sequences) -> None:
        self._edges, self._ranks = edges, edges.ranks
        self._later = _Numbers(len(edges.later), self._ranks)
        self._liked = _Numbers(len(edges.liked), self._ranks)

    @property
    def edges(self) -> int:
        """So many edges of all ranks can be predicted."""
        return self._later.total

    def draw(self, size: int, negatives: int) -> Batch:
        """A batch of `size` edges."""
        asked = torch.randint(self._later.total, (size,))
        others = torch.randint(self._liked.total, (negatives,))
        ahead = torch.empty(size).geometric_(1 - FURTHER).long() - 1
        if not self._ranks.several:
            return self._found(asked, others, ahead)
        here, there = self._later.own(asked), self._liked.own(others)
        found = self._found(
            asked[here] - self._later.begin, others[there] - self._liked.begin, ahead[here]
        )
        return self._together(found, here, there)

    def _found(self, asked: Tensor, others: Tensor, ahead: Tensor) -> Batch:
        """What this rank has of a batch, by its own numbers of edges."""
        edges = self._edges
        predicted = edges.later[asked]
        items, weights = edges.before(predicted)
        return Batch(items, weights, edges.wanted(predicted, ahead), edges.wanted(others))

    def _together(self, found: Batch, here: Tensor, there: Tensor) -> Batch:
        """The batch of all ranks, in one message; the bits of a weight travel as those of a number.

        Args:
            here, there: bool [size], [negatives], which of the numbers that were drawn are of this
                rank.
        """
        size = len(here)
        parts = [size * WINDOW, size * WINDOW, size, len(there)]
        message = torch.zeros(sum(parts), dtype=torch.int32)
        items, weights, wanted, sampled = torch.split(message, parts)
        items.view(size, WINDOW)[here] = found.items
        weights.view(size, WINDOW)[here] = found.weights.view(torch.int32)
        wanted[here] = found.wanted
        sampled[there] = found.sampled
        whole = torch.split(self._ranks.sum_tensor(message), parts)
        weights = whole[1].view(torch.float32).view(size, WINDOW)
        return Batch(whole[0].view(size, WINDOW), weights, whole[2], whole[3])


class _Numbers:
    """The numbers of the edges of all ranks: those of one rank after those of the one before, so
    that a number means the same edge however many ranks there are."""

    def __init__(self, own: int, ranks: Ranks) -> None:
        self.total, self.begin = ranks.total(own), ranks.before(own)
        self._end = self.begin + own

    def own(self, numbers: Tensor) -> Tensor:
        """Which of the numbers are of this rank, bool [numbers]."""
        return (numbers >= self.begin) & (numbers < self._end)
