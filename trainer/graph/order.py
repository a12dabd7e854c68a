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


def ages(starts: Int64s, order: Int64s, users: Int32s, timed: Bools) -> Int64s:
    """How many newer edges the user of each edge has, int64 [edges]; 0 for a user not `timed`.

    Args:
        starts: int64 [users + 1], where each user's edges begin.
        order: the edges' numbers, as `by_time` gives them.
        timed: bool [users].
    """
    rank = np.empty(len(users), np.int64)
    rank[order] = np.arange(len(users))
    return np.where(timed[users], starts[1:][users] - 1 - rank, 0)


def timed(users: Int32s, timestamps: Int64s, n_users: int) -> Bools:
    """Whether a user's edges have differing times, bool [users]."""
    newest = np.full(n_users, np.iinfo(np.int64).min)
    oldest = np.full(n_users, np.iinfo(np.int64).max)
    np.maximum.at(newest, users, timestamps)
    np.minimum.at(oldest, users, timestamps)
    return newest > oldest
