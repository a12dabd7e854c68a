"""Which users a rank has: a hash of the id says it, whichever partition an event came by.

Not the partition: the events of one user may be in several, after partitions were added to the
topic or where a producer takes another partitioner, and the order of a user's edges must be whole
on one rank. So each rank reads all rows, a window at a time, and keeps those of its own users.
"""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa

from trainer.ranks import Ranks


def own_rows(rows: pa.Table, ranks: Ranks) -> pa.Table:
    """The rows of the users of this rank."""
    if not ranks.several:
        return rows
    coded = rows["user_id"].combine_chunks().dictionary_encode()
    users = (zlib.crc32(user.encode()) % ranks.size for user in coded.dictionary.to_pylist())
    own = np.fromiter(users, np.int64, len(coded.dictionary)) == ranks.rank
    return rows.filter(pa.array(own[coded.indices.to_numpy()]))
