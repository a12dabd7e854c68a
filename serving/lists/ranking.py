"""Users' edges -> their best items, and the own item that led to each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from serving.lists.topk import FirstPass, best
from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings
from trainer.graph.arrays import Float32s, Int64s


class Ranked(NamedTuple):
    """The columns of Lists that ranking gives; as there."""

    items: Int64s
    scores: Float32s
    because: Int64s
    counts: Int64s


def rank(
    embeddings: Embeddings,
    first: FirstPass | None,
    users: Tensor,
    own: Own,
    k: int,
    unliked: Tensor | None,
    explained: bool,
) -> Ranked:
    """The best items of each user; an item that none of the user's edges leads to is in no list.

    Args:
        first: how all items are looked at first, None to look at them by all columns.
        users: int64 [block], the model's user numbers, -1 for users that it has not seen.
        own: their edges.
        k: items in a list, at most.
        unliked: int64 [any], items that are in no list.
        explained: whether `because` is needed; without, it has no columns.
    """
    scores, items = best(embeddings, first, users, own, k, unliked)
    because = items[:, :0]
    if explained:
        because = largest_shares(embeddings.contributions(users, own, items), own)
    # The score is exactly 0 where nothing leads from the user's edges to the item.
    led_to = scores.isfinite() & (scores != 0)
    counts = led_to.int().cumprod(1).sum(1)
    return Ranked(*(column.cpu().numpy() for column in (items, scores, because, counts)))


def unliked_items(embeddings: Embeddings) -> Tensor | None:
    """Items that nobody whom the model knows likes: in no list, not even behind bad ones."""
    strengths = embeddings.tensors.get("strengths")
    items = None if strengths is None else (strengths <= 0).nonzero()[:, 0]
    return items if items is not None and len(items) else None


def largest_shares(shares: Tensor, own: Own) -> Tensor:
    """The own item with the largest of the shares [edges, k] of each score, int64 [users, k].

    What the user does not like is no reason.
    """
    disliked = own.strengths <= 0
    if disliked.any():
        shares[disliked] = -torch.inf
    lengths = own.starts.diff()
    reasons = own.items.new_zeros(len(lengths), shares.shape[1])
    some = lengths > 0
    parts = torch.split(shares, lengths[some].tolist())
    if parts:
        places = torch.stack([part.argmax(0) for part in parts])
        reasons[some] = own.items[places + own.starts[:-1][some, None]]
    return reasons
