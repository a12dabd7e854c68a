"""The weights of the parts that are tried, and the mean of the best few of them.

With few users, the weighting with the highest figure may lead by chance, and leave out parts that
others need. So all weightings that are not surely worse count, as in the rule of one standard error
(Breiman et al., Classification and Regression Trees, 1984), but with two standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from trainer.graph.arrays import Float64s
from trainer.model.part import given

WEIGHTS = (0.0, 0.5, 1.0, 2.0)
FEW_WEIGHTS = (0.0, 1.0, 2.0)  # for four parts or more
SURE = 2.0  # standard errors by which a weighting must be behind the best one to be worse
LEAST = 0.1  # of the largest weight that is chosen: a part with less is left out


def weightings(weights: Sequence[float | None]) -> list[tuple[float, ...]]:
    """The weightings to try, none of which ranks as another one does.

    Args:
        weights: what is set for each part; None: the weight is to be chosen.
    """
    grid = WEIGHTS if len(weights) < 4 else FEW_WEIGHTS
    return _distinct(list(product(*(given(weight, grid) for weight in weights))))


def mean_of_best(
    tries: Sequence[tuple[float, ...]], figures: Float64s, open_: Sequence[bool]
) -> tuple[float, ...]:
    """The mean of the best weighting and of those that are not surely worse.

    Where nothing is set, only the ratios of a weighting mean something: each is brought to the
    mean weight 1 first, so that all count alike. Of the weights that are chosen, one below `LEAST`
    of the largest becomes 0.

    Args:
        figures: float64 [tries, users], of the same users.
        open_: for each part, whether the weight is chosen; else it is set.
    """
    behind = figures[figures.mean(axis=1).argmax()] - figures
    errors = behind.std(axis=1) / np.sqrt(figures.shape[1])
    few = np.array(tries)[behind.mean(axis=1) <= SURE * errors]
    if all(open_):
        few = few / few.mean(axis=1, keepdims=True)
    mean = few.mean(axis=0).round(2)
    small = mean < LEAST * mean.max(where=np.array(open_), initial=0.0)
    return tuple(np.where(small & open_, 0.0, mean).tolist())


def _distinct(tries: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Without those that rank alike: all zero, or a multiple of one before."""
    kept: dict[tuple[float, ...], tuple[float, ...]] = {}
    for weights in tries:
        total = sum(weights)
        if total:
            kept.setdefault(tuple(round(w / total, 6) for w in weights), weights)
    return list(kept.values())
