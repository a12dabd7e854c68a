"""Rows of an item-item matrix that several ranks sum up, a block at a time.

Each rank makes all rows of its own users' pairs. A block is summed by one rank: to it the others
send their entries, so each entry travels once, and no rank holds more than its own blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from trainer.graph.arrays import Int64s
from trainer.ranks import Ranks
from trainer.threads import on_threads


def summed(
    made: Callable[[Int64s], sp.csr_array], blocks: Sequence[Int64s], n_items: int, ranks: Ranks
) -> Iterator[sp.csr_array]:
    """The sums over the ranks of the blocks of this rank, of which it has every size-th one.

    Args:
        made: int64 [block] item numbers -> sparse float32 [block, items], of this rank's users.
        blocks: of all ranks, in the same order on all of them.
    """
    for begin in range(0, len(blocks), ranks.size):
        group = blocks[begin : begin + ranks.size]
        # Not of all blocks at once: made ones would wait, whole, for those that are swapped.
        own = list(on_threads(made, group))
        own += [_empty(0, n_items)] * (ranks.size - len(group))
        found = _swapped(own, ranks, n_items)
        if ranks.rank < len(group):
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


def _empty(rows: int, n_items: int) -> sp.csr_array:
    return sp.csr_array((rows, n_items), dtype=np.float32)
