"""The weights of the parts: the mean of the best weightings that were tried."""

import numpy as np
import pytest

from trainer.fit.weightings import mean_of_best
from trainer.graph.arrays import Float64s

OPEN = (True, True)
USERS = 100


def figures(*means: float, noise: float = 0.1) -> Float64s:
    """Of users for whom each weighting is as far from the mean of all, up or down by turns.

    Two weightings that differ in the mean by less than 2 * 2 * noise / 10 are as good as each
    other: no user has them in the same order as the next one.
    """
    signs = np.where(np.arange(USERS) % 2, 1.0, -1.0)
    return np.array([mean + noise * signs * (-1) ** n for n, mean in enumerate(means)])


def test_the_weights_are_the_mean_of_the_best_and_of_what_is_not_surely_worse() -> None:
    tries = [(2.0, 2.0), (2.0, 0.0), (0.0, 2.0)]
    assert mean_of_best(tries, figures(0.50, 0.48, 0.30), OPEN) == (1.5, 0.5)
    assert mean_of_best(tries, figures(0.50, 0.45, 0.30), OPEN) == (1.0, 1.0)


def test_on_more_users_the_same_difference_is_sure() -> None:
    tries = [(2.0, 2.0), (2.0, 0.0)]
    few = figures(0.50, 0.48)
    assert mean_of_best(tries, few, OPEN) == (1.5, 0.5)
    assert mean_of_best(tries, np.tile(few, 9), OPEN) == (1.0, 1.0)


def test_a_difference_that_all_users_share_is_sure_however_small() -> None:
    tries = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert mean_of_best(tries, figures(0.1, 0.2, 0.201, noise=0.0), OPEN) == (1.0, 1.0)


def test_weightings_count_alike_whatever_their_sums_are() -> None:
    tries = [(0.5, 0.5, 0.0), (2.0, 1.0, 3.0)]
    assert mean_of_best(tries, figures(0.5, 0.5), [True] * 3) == (1.25, 1.0, 0.75)


def test_beside_a_weight_that_is_set_the_others_are_the_mean_of_what_was_tried() -> None:
    tries = [(1.0, 2.0), (1.0, 0.0)]
    assert mean_of_best(tries, figures(0.5, 0.5), (False, True)) == (1.0, 1.0)


def test_a_part_that_hardly_adds_to_the_mean_is_left_out() -> None:
    tries = [(2.0, 0.0)] * 13 + [(2.0, 1.0)]
    assert mean_of_best(tries, figures(*[0.5] * 14), OPEN) == (1.95, 0.0)


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        ((30.0, 0.5, 2.0), (30.0, 0.5, 2.0)),
        ((30.0, 0.1, 2.0), (30.0, 0.0, 2.0)),
        ((0.1, 0.5, 2.0), (0.1, 0.5, 2.0)),
    ],
)
def test_a_large_weight_that_is_set_leaves_the_other_parts_in_the_model(
    weights: tuple[float, ...], left: tuple[float, ...]
) -> None:
    assert mean_of_best([weights], figures(0.5), (False, True, True)) == left
