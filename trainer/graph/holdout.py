"""Which edges are held out of a training, to choose by and to measure on."""

from __future__ import annotations

import numpy as np

from trainer.graph import whole
from trainer.graph.arrays import Bools, Int8s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.keys import hashed

HELD_OUT = 0.1  # newest share of each user's edges
# Without times, a random share, as large as in the usual files for offline evaluation; the learned
# part goes on over the whole graph afterwards, so what is held out is not lost.
HELD_OUT_AT_RANDOM = 0.2
JUDGED_USERS = 50  # with fewer of them held-out edges say nothing
KNOWN, PUT_ASIDE, UNSEEN = 0, 1, 2  # of an edge, by the last training: the middle ones it held out


def held_out_edges(
    graph: InteractionGraph, novelty: Int8s | None = None, liked: bool = True
) -> Bools:
    """Mask [edges] of what is held out: each user's newest, or random ones without times.

    Args:
        novelty: KNOWN, PUT_ASIDE or UNSEEN [edges], if there is a training to be compared with. Of
            each user those are held out that are newest to it, and where enough users have such,
            UNSEEN ones alone: so this training knows all that the last one knew.
        liked: of edges of some strength alone. A model that ranks is judged by what users like, one
            that predicts interactions by all edges.
    """
    share = HELD_OUT if whole.several_times(graph) else HELD_OUT_AT_RANDOM
    mask = newest_edges(graph, share, novelty, liked)
    if novelty is not None:
        unseen: Bools = mask & (novelty == UNSEEN)
        if judged_users(graph.subset(unseen)) >= JUDGED_USERS:
            return unseen
    return mask


def newest_edges(
    graph: InteractionGraph,
    share: float,
    novelty: Int8s | None = None,
    liked: bool = False,
    fewest: int = 5,
) -> Bools:
    """Mask [edges] of each user's newest edges: `share` of them, at least one of `fewest`.

    Each user's own newest, not the newest of all: where users come in sessions the latter
    belong to users of whom nothing older is left to recommend from. Of users whose edges all
    have one time a hash of the two ends decides, so that data without times is held out at
    random, and mostly the same edges again when others have come.

    Args:
        novelty: of each edge, [edges]; it comes before the time, which a repeated event moves.
        liked: of edges of some strength alone.
        fewest: edges of which at least one is taken.
    """
    novelty = np.zeros(len(graph), np.int8) if novelty is None else novelty
    if liked and not graph.strengths.all():
        mask = graph.strengths > 0
        mask[mask] = newest_edges(graph.subset(mask), share, novelty[mask], fewest=fewest)
        return mask
    chance = (hashed(graph.keys) >> np.uint64(1)).astype(np.int64)
    chance = np.where(graph.timed[graph.users], graph.places, chance)
    by_age = np.lexsort((chance, graph.timestamps, novelty, graph.users))
    start = graph.starts
    counts = np.diff(start)
    rank = np.arange(len(graph)) - start[graph.users]  # users are sorted, so by_age keeps rows
    taken = np.maximum((counts * share).astype(np.int64), counts >= fewest)
    mask = np.zeros(len(graph), np.bool_)
    mask[by_age] = rank >= (counts - taken)[graph.users]
    return mask


def last_edges(graph: InteractionGraph) -> Bools:
    """Mask [edges] of the last edge of some strength of each user who has two of them or more."""
    return newest_edges(graph, 0.0, liked=True, fewest=2)


def judged_users(held_out: InteractionGraph) -> int:
    """Users with a held-out edge of some strength."""
    return held_out.ranks.total(int(np.count_nonzero(held_out.user_strengths)))
