"""The order of each user's edges: by timestamp, then as they were read."""

from __future__ import annotations

import numpy as np

from trainer.graph.arrays import Bools, Int32s, Int64s


def by_time(users: Int32s, timestamps: Int64s, places: Int64s) -> Int64s:
    """Numbers of the edges in each user's order, users one after another; int64 [edges].

    Args:
        users, timestamps, places: of each edge, as the graph has them.
    """
    if not len(users):
        return np.empty(0, np.int64)
    since = int(timestamps.min())
    bits = (int(timestamps.max()) - since).bit_length()
    if not bits or bits + int(users.max()).bit_length() > 63:
        return np.lexsort((places, timestamps, users))
    # One sort of numbers takes a fifth of the time of three stable sorts.
    keys = (users.astype(np.int64) << bits) | (timestamps - since)
    order: Int64s = np.argsort(keys)
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    tied = np.flatnonzero(np.append(False, same) | np.append(same, False))
    of_tied = order[tied]
    order[tied] = of_tied[np.lexsort((places[of_tied], keys[tied]))]
    return order


def ages(users: Int32s, timestamps: Int64s, places: Int64s, n_users: int) -> Int64s:
    """How many newer edges the user of each edge has, int64 [edges]; 0 for a user not `timed`.

    Args:
        users, timestamps, places: as for `by_time`.
    """
    ends = np.cumsum(np.bincount(users, minlength=n_users))
    rank = np.empty(len(users), np.int64)
    rank[by_time(users, timestamps, places)] = np.arange(len(users))
    return np.where(timed(users, timestamps, n_users)[users], ends[users] - 1 - rank, 0)


def timed(users: Int32s, timestamps: Int64s, n_users: int) -> Bools:
    """Whether a user's edges have differing times, bool [users]."""
    newest = np.full(n_users, np.iinfo(np.int64).min)
    oldest = np.full(n_users, np.iinfo(np.int64).max)
    np.maximum.at(newest, users, timestamps)
    np.minimum.at(oldest, users, timestamps)
    return newest > oldest
