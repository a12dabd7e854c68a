"""Which users a rank has: a hash of the id says it, whichever partition an event came by.

A rank has a range of hashes, so users in the order of their hashes come rank after rank, in the
same order however many ranks there are.

Not the partition: the events of one user may be in several, after partitions were added to the
topic or where a producer takes another partitioner, and the order of a user's edges must be whole
on one rank. So each rank reads all rows, a window at a time, and keeps those of its own users.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from trainer.graph.arrays import Bools, UInt32s
from trainer.graph.hashes import hashes_of
from trainer.ranks import Ranks


def own_rows(rows: pa.Table, ranks: Ranks) -> pa.Table:
    """The rows of the users of this rank."""
    if not ranks.several:
        return rows
    coded = rows["user_id"].combine_chunks().dictionary_encode()
    own = are_own(hashes_of(coded.dictionary), ranks)
    return rows.filter(pa.array(own[coded.indices.to_numpy()]))


def are_own(hashes: UInt32s, ranks: Ranks) -> Bools:
    """Which of the users with these hashes are of this rank, bool [users]."""
    made: Bools = hashes.astype(np.uint64) * np.uint64(ranks.size) >> np.uint64(32) == ranks.rank
    return made
