"""The weights of the parts: the mean of the best weightings that were tried."""

import pytest

from trainer.fit.weightings import BEST, mean_of_best

OPEN = (True, True)


@pytest.mark.parametrize(
    ("figures", "mean"),
    [((0.1, 0.3, 0.2, 0.0), (1.0, 1.0)), ((0.3, 0.0, 0.0, 0.2), (0.83, 1.17))],
)
def test_the_weights_are_the_mean_of_the_best_few(
    figures: tuple[float, ...], mean: tuple[float, ...]
) -> None:
    tries = [(2.0, 2.0), (2.0, 0.0), (0.0, 2.0), (1.0, 2.0)]
    others = 2 * BEST - len(tries)
    assert mean_of_best(tries + others * [(9.0, 9.0)], [*figures, *others * [0.0]], OPEN) == mean


def test_of_weightings_with_the_same_ratios_each_counts_alike() -> None:
    few = [(0.5, 0.5, 0.0), (2.0, 1.0, 3.0)]
    others = [(1.0, 0.0, 0.0)] * (2 * BEST - 2)
    figures = [1.0, 0.9, *(0.0 for _ in others)]
    assert mean_of_best(few + others, figures, [True] * 3) == (1.25, 1.0, 0.75)


def test_beside_a_weight_that_is_set_the_others_are_the_mean_of_what_was_tried() -> None:
    few = [(1.0, 2.0), (1.0, 0.0)]
    others = [(1.0, 0.5)] * (2 * BEST - 2)
    figures = [1.0, 0.9, *(0.0 for _ in others)]
    assert mean_of_best(few + others, figures, (False, True)) == (1.0, 1.0)


def test_of_a_few_weightings_the_best_one_is_taken() -> None:
    tries = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert mean_of_best(tries, [0.1, 0.2, 0.3], OPEN) == (1.0, 1.0)


def test_a_part_that_hardly_adds_to_the_mean_is_left_out() -> None:
    few = [(2.0, 0.0)] * 13 + [(2.0, 1.0)]
    others = [(0.0, 1.0)] * (BEST - 1) * len(few)
    figures = [1.0] * len(few) + [0.0] * len(others)
    assert mean_of_best(few + others, figures, OPEN) == (1.95, 0.0)


def test_a_large_weight_that_is_set_leaves_the_other_parts_in_the_model() -> None:
    open_ = (False, True, True)
    assert mean_of_best([(30.0, 0.5, 2.0)], [1.0], open_) == (30.0, 0.5, 2.0)
    assert mean_of_best([(30.0, 0.1, 2.0)], [1.0], open_) == (30.0, 0.0, 2.0)
    assert mean_of_best([(0.1, 0.5, 2.0)], [1.0], open_) == (0.1, 0.5, 2.0)
