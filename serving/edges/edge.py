"""One edge of a user, and how old it is beside the user's other edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.graph.arrays import Int64s


class Edge(NamedTuple):
    """A user's edge to an item: when its last event was, in epoch milliseconds, and its weight."""

    timestamp: int
    weight: float


Edges = dict[str, Edge]  # by item


def ages(times: Sequence[int]) -> Int64s:
    """How many newer edges a user has beside each of these, int64 [edges]; as in the graph.

    Args:
        times: epoch milliseconds of all the user's edges; of equal ones the later is newer.
    """
    if len(set(times)) < 2:
        return np.zeros(len(times), np.int64)
    newer = np.empty(len(times), np.int64)
    newer[np.argsort(np.array(times), kind="stable")] = np.arange(len(times))[::-1]
    return newer
