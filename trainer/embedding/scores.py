"""Scores of all items, also where each of several ranks has the tables of its own items alone.

Then all ranks score the users of all: what a user's edges bring is summed over the ranks, each of
which has some of the edges' items, and so are the scores of the neighbours of these.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings
from trainer.ranks import Ranks


@torch.no_grad()
def score_all(
    embeddings: Embeddings, users: Tensor, own: Own, n_items: int, ranks: Ranks
) -> Tensor:
    """As `Embeddings.score`, by all ranks at once, each with users of its own, or with none.

    Args:
        embeddings: of a blend with the rows of this rank's items, of another kind with all rows.
        users: int64 [block], this rank's user numbers.
        own: their edges, in numbers of all items.

    Returns:
        float [block, n_items].
    """
    if not ranks.several or not isinstance(embeddings, BlendEmbeddings):
        return embeddings.score(users, own)
    of_all, blocks = _of_all_ranks(own.recent(embeddings.recency), ranks)
    if not blocks[-1]:
        return embeddings.outgoing.new_empty(0, n_items)
    here = of_all.items % ranks.size == ranks.rank
    mine = of_all.only(here)
    mine = mine._replace(items=mine.items // ranks.size)
    vectors = embeddings.sums_of_items(mine, of_all.sums())
    vectors[blocks[ranks.rank] : blocks[ranks.rank + 1]] += embeddings.of_users(users)
    vectors = embeddings.scaled(ranks.sum_tensor(vectors))
    shares = mine._replace(strengths=of_all.shares()[here])
    made = vectors
    for asking, (begin, end) in enumerate(pairwise(blocks)):
        part = vectors.new_zeros(end - begin, n_items)
        part[:, ranks.own] = vectors[begin:end] @ embeddings.outgoing.T
        embeddings.add_near_by(part, shares.slice(begin, end))
        part = ranks.sum_at(part, asking)
        if asking == ranks.rank:
            made = part
    return made


def _of_all_ranks(own: Own, ranks: Ranks) -> tuple[Own, list[int]]:
    """The edges of the users of all ranks, one rank after another, and where the users of each rank
    begin; the last number is that of all users."""
    where = own.items.device
    columns = own.starts.diff(), own.items, own.strengths
    counts, items, strengths = (
        torch.from_numpy(ranks.joined(column.cpu().numpy())).to(where) for column in columns
    )
    users = ranks.joined(np.array([len(columns[0])])).tolist()
    return Own(functional.pad(counts.cumsum(0), (1, 0)), items, strengths), [0, *accumulate(users)]
