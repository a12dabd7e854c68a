"""The k best items of a block of users, minus those that each has.

A wide model is ranked in two passes: all items by the columns that weigh most, in half precision
where the processor multiplies it, then the best of them by all columns. What that loses against
ranking all items by all columns is measured in benchmarks/README.md; scores are exact either way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.embeddings import Embeddings, Own

LEADING = 64  # vectors of the low pass in the first pass, beside all of the learned part
CANDIDATES = 3  # times k items are looked at in the second pass


def leading(embeddings: Embeddings) -> Tensor | None:
    """The items' columns for the first pass, [items, LEADING + dim]; None: one pass will do."""
    outgoing = embeddings.outgoing
    if embeddings.vectors <= 2 * LEADING or outgoing.is_cuda:
        return None
    halves = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return columns(embeddings, outgoing).to(torch.bfloat16 if halves else torch.float32)


def best(
    embeddings: Embeddings, first: Tensor | None, users: Tensor, own: Own, k: int
) -> tuple[Tensor, Tensor]:
    """The k best items of each user that it has no edge to, best first.

    Args:
        first: of `leading`.
        users: int64 [block], the model's user numbers, -1 for users it has not seen.
        own: their edges.

    Returns:
        scores float [block, k] and items int64 [block, k], k at most the number of items; a score
        is -inf where a user has fewer items left, and such an entry is to be dropped.
    """
    vectors, outgoing = embeddings.user_vectors(users, own), embeddings.outgoing
    if first is None:
        return topk(embeddings.add_near(vectors @ outgoing.T, own), own, k)
    rough = columns(embeddings, vectors).to(first.dtype) @ first.T
    scores = embeddings.add_near(rough.to(torch.float32, copy=True), own)
    values, items = topk(scores, own, CANDIDATES * k)
    values -= rough.gather(1, items)  # the neighbours' part is left, which was exact
    gathered = outgoing.new_empty(items.shape[1], outgoing.shape[1])
    for row in range(len(users)):  # one user's candidates at a time, so that they stay in the cache
        torch.index_select(outgoing, 0, items[row], out=gathered)
        values[row].addmv_(gathered, vectors[row])
    ranked = values.topk(min(k, values.shape[1]), dim=1)
    return ranked.values, items.gather(1, ranked.indices)


def columns(embeddings: Embeddings, table: Tensor) -> Tensor:
    """Of a table [any, width] those of the first pass."""
    return torch.cat([table[:, :LEADING], table[:, embeddings.vectors :]], 1)


def topk(scores: Tensor, own: Own, k: int) -> tuple[Tensor, Tensor]:
    """The k best entries of each row but the own ones, exactly; as `best`.

    Args:
        scores: float [block, items], overwritten.
    """
    scores[own.rows(), own.items] = -torch.inf
    ranked = scores.topk(min(k, scores.shape[1]), dim=1)
    return ranked.values, ranked.indices
