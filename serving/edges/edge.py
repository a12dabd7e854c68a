"""One edge of a user, and how old it is beside the user's other edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.graph import order
from trainer.graph.arrays import Int64s


class Edge(NamedTuple):
    """A user's edge to an item: when its last event was, in epoch milliseconds, and its weight."""

    timestamp: int
    weight: float


Edges = dict[str, Edge]  # by item


def ages(starts: Sequence[int] | Int64s, times: Sequence[int] | Int64s) -> Int64s:
    """How many newer edges each edge's user has, int64 [edges]; as in the graph.

    Args:
        starts: [users + 1], where each user's edges begin.
        times: epoch milliseconds of the edges; of equal ones of a user the later is newer.
    """
    begins, at = np.asarray(starts, np.int64), np.asarray(times, np.int64)
    n_users = len(begins) - 1
    users = np.repeat(np.arange(n_users, dtype=np.int32), np.diff(begins))
    by_time = order.by_time(users, at, np.arange(len(at)))
    return order.ages(begins, by_time, users, order.timed(users, at, n_users))
