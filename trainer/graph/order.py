"""The order of each user's edges: by timestamp, then as they were read."""

from __future__ import annotations

import numpy as np

from trainer.graph.arrays import Bools, Int32s, Int64s


def by_time(users: Int32s, timestamps: Int64s, places: Int64s) -> Int64s:
    """Numbers of the edges in each user's order, users one after another; int64 [edges].

    Args:
        users, timestamps, places: of each edge, as the graph has them.
    """
    return np.lexsort((places, timestamps, users))


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
