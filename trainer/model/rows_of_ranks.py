"""Rows of an item-item matrix that several ranks sum up, a block at a time.

Each rank makes all rows of its own users' pairs. The rows of an item are summed by the rank whose
item it is: to it the others send their entries, so each entry travels once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from trainer.graph.arrays import Int64s
from trainer.ranks import Ranks
from trainer.threads import on_threads


def summed(
    made: Callable[[Int64s], sp.csr_array],
    blocks: Sequence[Sequence[Int64s]],
    n_items: int,
    ranks: Ranks,
) -> Iterator[sp.csr_array]:
    """The sums over the ranks of the blocks of this rank.

    Args:
        made: int64 [block] item numbers -> sparse float32 [block, items], of this rank's users.
        blocks: of each rank, the same on all of them.
    """
    for number in range(max(map(len, blocks))):
        group = [of[number : number + 1] for of in blocks]
        # Not of all blocks at once: made ones would wait, whole, for those that are swapped.
        own = iter(list(on_threads(made, [items for of in group for items in of])))
        found = _swapped([next(own) if of else _empty(n_items) for of in group], ranks, n_items)
        if group[ranks.rank]:
            yield sp.csr_array(sum(found[1:], start=found[0]))


def _swapped(own: Sequence[sp.csr_array], ranks: Ranks, n_items: int) -> list[sp.csr_array]:
    """What each rank has of this rank's block."""
    columns = (
        [np.diff(each.indptr).astype(np.int64) for each in own],
        [each.indices.astype(np.int32) for each in own],
        [each.data.astype(np.float32) for each in own],
    )
    lengths, items, values = (ranks.swapped(column) for column in columns)
    return [
        sp.csr_array((v, i, np.append(0, n.cumsum())), (len(n), n_items))
        for n, i, v in zip(lengths, items, values, strict=True)
    ]


def _empty(n_items: int) -> sp.csr_array:
    return sp.csr_array((0, n_items), dtype=np.float32)
