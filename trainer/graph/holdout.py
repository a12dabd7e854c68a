"""Which edges are held out of a training, to choose by and to measure on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.graph.interactions import InteractionGraph
from trainer.hyperparameters import Hyperparameters

HELD_OUT = 0.1  # newest share of each user's edges
# Without times, a random share, as large as in the usual files for offline evaluation; the learned
# part goes on over the whole graph afterwards, so what is held out is not lost.
HELD_OUT_AT_RANDOM = 0.2
JUDGED_USERS = 50  # with fewer of them held-out edges say nothing
KNOWN, PUT_ASIDE, UNSEEN = 0, 1, 2  # of an edge, by the last training: the middle ones it held out
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]


def held_out_edges(
    graph: InteractionGraph, settings: Hyperparameters, novelty: Int8s | None = None
) -> Bools:
    """Mask [edges] of what is held out: each user's newest, or random ones without times.

    A model that ranks is judged by what users like, one that predicts interactions by all of them.

    Args:
        novelty: KNOWN, PUT_ASIDE or UNSEEN [edges], if there is a training to be compared with. Of
            each user those are held out that are newest to it, and where enough users have such,
            UNSEEN ones alone: so this training knows all that the last one knew.
    """
    timed = len(graph) > 0 and graph.timestamps.min() != graph.timestamps.max()
    share = HELD_OUT if timed else HELD_OUT_AT_RANDOM
    newest = graph.newest(share, novelty, liked=settings.objective != "mse")
    if novelty is not None:
        unseen: Bools = newest & (novelty == UNSEEN)
        if judged_users(graph.subset(unseen)) >= JUDGED_USERS:
            return unseen
    return newest


def judged_users(held_out: InteractionGraph) -> int:
    """Users with a held-out edge of some strength."""
    return int(np.count_nonzero(held_out.user_strengths))
