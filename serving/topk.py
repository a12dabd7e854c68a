"""Exact top k over all items, minus those the user has."""

from __future__ import annotations

import torch
from torch import Tensor


def topk(scores: Tensor, starts: Tensor, seen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items of each user, best first.

    Args:
        scores: float [users, items], overwritten.
        starts: int64 [users + 1], seen: int64 [edges]: the items to leave out.

    Returns:
        scores float [users, k] and items int64 [users, k], k at most the number of items; a score
        is -inf where a user has fewer items left, and such an entry is to be dropped.
    """
    users = torch.arange(len(scores), device=seen.device).repeat_interleave(starts.diff())
    scores[users, seen] = -torch.inf
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    return best.values, best.indices
