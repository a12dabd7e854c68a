"""The k best items of a block of users, minus those that each has.

A wide model is ranked in two passes: all items by the columns that weigh most, then the best of
them by all columns. What that loses against ranking all items by all columns is measured in
benchmarks/README.md; a list's scores are exact either way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.embeddings import Embeddings, Own

LEADING = 64  # vectors of the low pass in the first pass, beside all of the learned part
CANDIDATES = 128  # items that the second pass looks at, or twice k


def best(embeddings: Embeddings, users: Tensor, own: Own, k: int) -> tuple[Tensor, Tensor]:
    """The k best items of each user that it has no edge to, best first.

    Args:
        users: int64 [block], the model's user numbers, -1 for users it has not seen.
        own: their edges.

    Returns:
        scores float [block, k] and items int64 [block, k], k at most the number of items; a score
        is -inf where a user has fewer items left, and such an entry is to be dropped.
    """
    vectors = embeddings.user_vectors(users, own)
    outgoing, low = embeddings.outgoing, embeddings.vectors
    if low <= 2 * LEADING or vectors.is_cuda:
        return topk(embeddings.add_near(vectors @ outgoing.T, own), own, k)
    scores = vectors[:, :LEADING] @ outgoing[:, :LEADING].T
    scores.addmm_(vectors[:, low:], outgoing[:, low:].T)
    values, items = topk(embeddings.add_near(scores, own), own, max(CANDIDATES, 2 * k))
    rest, weights = outgoing[:, LEADING:low], vectors[:, LEADING:low].contiguous()
    gathered = rest.new_empty(items.shape[1], rest.shape[1])
    for row in range(len(users)):  # one user's candidates at a time, so that they stay in the cache
        torch.index_select(rest, 0, items[row], out=gathered)
        values[row].addmv_(gathered, weights[row])
    ranked = values.topk(min(k, values.shape[1]), dim=1)
    return ranked.values, items.gather(1, ranked.indices)


def topk(scores: Tensor, own: Own, k: int) -> tuple[Tensor, Tensor]:
    """The k best entries of each row but the own ones, exactly; as `best`.

    Args:
        scores: float [block, items], overwritten.
    """
    scores[own.rows(), own.items] = -torch.inf
    ranked = scores.topk(min(k, scores.shape[1]), dim=1)
    return ranked.values, ranked.indices
