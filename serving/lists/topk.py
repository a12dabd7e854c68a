"""The k best items of a block of users, without the items that each has.

A wide model is ranked in two passes: all items by the columns that weigh most, in half precision
where the processor multiplies it, then the best of them by all columns. How many columns and
candidates that takes is tried on the model itself. Where a few columns are not enough, the first
pass has all of them in half precision; without such a processor one pass ranks all items. A user of
whom the learned part knows nothing is ranked in one pass too. What two passes lose is measured in
benchmarks/README.md; scores are exact either way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.largest import largest

FEWEST_VECTORS = 128  # of the low pass, from which a first pass is tried
# Leading vectors and candidates that are tried, the cheapest first.
TRIED = ((0, 2), (0, 3), (64, 2), (64, 3), (256, 3))
PROBES = 64  # items: the lists of users who have only one of them are looked at
COLUMNS = 256  # items are multiplied in multiples of this, as far as the table goes
ENOUGH = 0.98  # share of the exact lists that two passes must find there


@dataclass(frozen=True)
class FirstPass:
    """The columns by which all items are looked at first.

    table: [items, leading + dim], of the outgoing rows the low pass's leading vectors, which may be
        all, and all of the learned part.
    candidates: times k items that the second pass looks at.
    """

    table: Tensor
    leading: int
    candidates: int

    @classmethod
    def of(cls, embeddings: Embeddings, k: int) -> Self | None:
        """The cheapest first pass that is good enough for lists of k; None if none is."""
        if embeddings.vectors < FEWEST_VECTORS or embeddings.outgoing.is_cuda:
            return None
        items = embeddings.tensors["strengths"].nonzero()[:, 0]
        items = items[:: max(1, len(items) // PROBES)][:PROBES]
        own = Own(torch.arange(len(items) + 1), items, torch.ones(len(items)))
        nobody = torch.full_like(items, -1)
        exact = topk(embeddings.score(nobody, own), own, k)[1]
        few = [(n, candidates) for n, candidates in TRIED if 2 * n <= embeddings.vectors]
        every = [(embeddings.vectors, 2)] if _multiplies_halves() else []
        for leading, candidates in few + every:
            first = cls._of_columns(embeddings, leading, candidates)
            found = best(embeddings, first, nobody, own, k)[1]
            if (found[:, :, None] == exact[:, None]).any(2).float().mean() >= ENOUGH:
                return first
        return None

    @classmethod
    def _of_columns(cls, embeddings: Embeddings, leading: int, candidates: int) -> Self:
        first = cls(embeddings.outgoing, leading, candidates)
        table = first.columns(embeddings, embeddings.outgoing)
        precision = torch.bfloat16 if _multiplies_halves() else torch.float32
        return replace(first, table=table.to(precision))

    def columns(self, embeddings: Embeddings, table: Tensor) -> Tensor:
        """The columns of this pass, of a table [any, width]."""
        if self.leading == embeddings.vectors:
            return table
        return torch.cat([table[:, : self.leading], table[:, embeddings.vectors :]], 1)

    def scores(self, embeddings: Embeddings, vectors: Tensor) -> Tensor:
        """The scores of users, vectors [block, width], by this pass: [block, items].

        Half-precision products have few sizes, as torch compiles code for each size, which takes
        ten milliseconds and half a megabyte. The rows are padded to 1, 2, 4 or a multiple of 8.
        """
        block, items = len(vectors), embeddings.n_items
        table = self.table[: -(-items // COLUMNS) * COLUMNS]
        rows = min(8, 1 << (block - 1).bit_length())
        padding = (0, 0, 0, -block % rows)
        padded = functional.pad(self.columns(embeddings, vectors).to(table.dtype), padding)
        return (padded @ table.T)[:block, :items]

    def is_blind(self, embeddings: Embeddings, vectors: Tensor) -> Tensor:
        """Of which users, vectors [block, width], this pass sees too little: bool [block].

        With nothing learned and few columns of the low pass all items but a few look alike.
        """
        if self.leading == embeddings.vectors or not embeddings.dim:
            return vectors.new_zeros(len(vectors), dtype=torch.bool)
        return ~vectors[:, embeddings.vectors :].any(1)

    def with_room(self, spare: int) -> Self:
        """The same with zero rows for so many new items."""
        return replace(self, table=functional.pad(self.table, (0, 0, 0, spare)))

    def put(self, numbers: list[int], embeddings: Embeddings, rows: Tensor) -> None:
        """Take over the outgoing rows of items."""
        self.table[numbers] = self.columns(embeddings, rows).to(self.table.dtype)


def _multiplies_halves() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def best(
    embeddings: Embeddings,
    first: FirstPass | None,
    users: Tensor,
    own: Own,
    k: int,
    unliked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best items of each user that it has no edge to, best first.

    Args:
        first: of the same items and perhaps more.
        users: int64 [block], the model's user numbers, -1 for users it has not seen.
        own: their edges.
        unliked: int64 [any], items that are in no list.

    Returns:
        scores float [block, k] and items int64 [block, k], k at most the number of items; a score
        is -inf where a user has fewer items left, and such an entry is to be dropped.
    """
    vectors, outgoing = embeddings.user_vectors(users, own), embeddings.outgoing

    def in_one_pass(vectors: Tensor, own: Own) -> tuple[Tensor, Tensor]:
        return topk(embeddings.add_near(vectors @ outgoing.T, own), own, k, unliked)

    if first is None:
        return in_one_pass(vectors, own)
    rough = first.scores(embeddings, vectors)
    scores = embeddings.add_near(rough.to(torch.float32, copy=True), own)
    values, items = topk(scores, own, first.candidates * k, unliked)
    values -= rough.gather(1, items)  # the neighbours' part is left, which was exact
    gathered = outgoing.new_empty(items.shape[1], outgoing.shape[1])
    # One user's candidates at a time, so that they stay in the cache.
    for mine, vector, scored in zip(items.unbind(), vectors.unbind(), values.unbind(), strict=True):
        torch.index_select(outgoing, 0, mine, out=gathered)
        scored.addmv_(gathered, vector)
    best_values, places = values.topk(min(k, values.shape[1]), dim=1)
    best_items = items.gather(1, places)
    blind = first.is_blind(embeddings, vectors) & (own.starts.diff() > 0)
    if blind.any():
        best_values[blind], best_items[blind] = in_one_pass(vectors[blind], own.of(blind))
    return best_values, best_items


def topk(scores: Tensor, own: Own, k: int, unliked: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best entries of each row but the own and the unliked ones, exactly; as `best`.

    Args:
        scores: float [block, items], overwritten.
    """
    scores[own.rows(), own.items] = -torch.inf
    if unliked is not None:
        scores[:, unliked] = -torch.inf
    return largest(scores, min(k, scores.shape[1]))
