"""What each own item brings to each recommended one: the sums behind `because`."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.embedding.edges import Own


def products(
    incoming: Tensor, outgoing: Tensor, own: Own, recommended: Tensor, first: int, factors: Tensor
) -> Tensor:
    """The product of each own item's row and each recommended item's, float [edges, k].

    Args:
        incoming, outgoing: [items, width] and [items, at least width].
        recommended: int64 [block, k], of the users of `own`.
        first: from this column on, rows of `incoming` are multiplied by
        factors: [block], the user's factor.
    """
    made = torch.empty(len(own.items), recommended.shape[1], device=own.items.device)
    to = outgoing.new_empty(recommended.shape[1], outgoing.shape[1])
    to_them, lengths = to[:, : incoming.shape[1]].T, own.starts.diff().tolist()
    users_own = zip(torch.split(own.items, lengths), torch.split(made, lengths), strict=True)
    each = zip(users_own, recommended.unbind(), factors.tolist(), strict=True)
    for (items, shares), best, factor in each:  # a user's rows stay in the cache
        brought = incoming.index_select(0, items)
        brought[:, first:].mul_(factor)
        torch.index_select(outgoing, 0, best, out=to)
        torch.mm(brought, to_them, out=shares)
    return made
