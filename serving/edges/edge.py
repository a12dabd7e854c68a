"""One edge of a user, how old it is beside the user's other edges, and all edges as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from trainer.embedding.edges import Own
from trainer.graph import order
from trainer.graph.arrays import Float32s, Int64s
from trainer.graph.weights import Weighing


class Edge(NamedTuple):
    """A user's edge to an item: when its last event was, in epoch milliseconds, and its weight."""

    timestamp: int
    weight: float


Edges = dict[str, Edge]  # by item
Columns = tuple[Int64s, Float32s, Int64s]  # of a user's edges: items, strengths, ages
NO_EDGES: Columns = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)


def ages(starts: Sequence[int] | Int64s, times: Sequence[int] | Int64s) -> Int64s:
    """How many newer edges each edge's user has, int64 [edges]; as in the graph.

    Args:
        starts: [users + 1], where each user's edges begin.
        times: epoch milliseconds of the edges; of equal ones of a user the later is newer.
    """
    begins, at = np.asarray(starts, np.int64), np.asarray(times, np.int64)
    n_users = len(begins) - 1
    users = np.repeat(np.arange(n_users, dtype=np.int32), np.diff(begins))
    return order.ages(users, at, np.arange(len(at)), n_users)


def columns(
    users: Sequence[Edges], of_id: Mapping[str, int], weighing: Weighing, newest: int
) -> Iterator[tuple[Columns, int]]:
    """The columns of each user's edges, and epoch milliseconds of the newest one, 0 without one.

    All users' are turned into arrays together: a user has few edges, and an array costs as much as
    a dozen of them.

    Args:
        of_id: the number of each item; others are -1.
        newest: epoch milliseconds, as of which strengths are.
    """
    numbers = np.array([of_id.get(item, -1) for edges in users for item in edges], np.int64)
    flat = [edge for edges in users for edge in edges.values()]
    times, weights = zip(*flat, strict=True) if flat else ((), ())
    at = np.array(times, np.int64)
    strengths = weighing.strengths(np.array(weights, np.float32), at, newest)
    starts = np.cumsum([0, *map(len, users)])
    old = ages(starts, at)
    for begin, end in pairwise(starts.tolist()):
        own = slice(begin, end)
        yield (numbers[own], strengths[own], old[own]), int(at[own].max(initial=0))


def together(users: Sequence[Columns]) -> Own:
    """The edges of users, one after another, as the scores are made of them."""
    begins = np.cumsum([0, *(len(items) for items, *_ in users)])
    joined = [np.concatenate(each) for each in zip(*(users or [NO_EDGES]), strict=True)]
    return Own(*map(torch.from_numpy, (begins, *joined)))
