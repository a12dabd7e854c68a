"""Users in an order, and some of them evenly taken.

Several ranks take the order of the hashes of ids, of which each has a range: so these are the same
users for any number of ranks. One process takes the users as they came.
"""

from __future__ import annotations

import numpy as np

from trainer.graph.arrays import Bools, Int64s
from trainer.graph.ids import Ids
from trainer.ranks import Ranks


def in_order(ids: Ids, which: Bools, ranks: Ranks) -> Int64s:
    """The numbers of the users `which` (bool [users]) in their order; int64 [n]."""
    if not ranks.several:
        return np.flatnonzero(which)
    order = ids.by_hash
    return order[which[order]].astype(np.int64)


def one_in(nth: int, users: Int64s, ranks: Ranks) -> Int64s:
    """Every nth user, counted over the ranks.

    Args:
        users: this rank's, as `in_order` gives them.
    """
    return users[-ranks.before(len(users)) % nth :: nth]


def at_most(most: int, users: Int64s, ranks: Ranks) -> Int64s:
    """The first users, counted over the ranks; the arguments are those of `one_in`."""
    return users[: max(0, most - ranks.before(len(users)))]
