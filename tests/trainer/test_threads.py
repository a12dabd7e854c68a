"""Parts of a whole on several threads: all results in order, and errors as they were raised."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.graphs import graph
from tests.services import PATIENCE
from trainer.fit import evaluate
from trainer.fit.evaluate import both, ndcgs, popularity, scorer
from trainer.fit.fit import fit
from trainer.fit.side_by_side import side_by_side
from trainer.graph.holdout import held_out_edges
from trainer.graph.interactions import InteractionGraph
from trainer.model import rows, transitions
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.neighbors import neighbors
from trainer.model.progress import quiet
from trainer.model.rows import Rows, together
from trainer.ranks import ALONE
from trainer.threads import MOST, on_threads


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_the_results_are_in_the_order_of_the_parts(n: int) -> None:
    with threads(n):
        assert list(on_threads(lambda part: part * part, range(50))) == [k * k for k in range(50)]
        assert list(on_threads(lambda part: part, range(0))) == []


@pytest.mark.parametrize("n", [1, 2, 16])
def test_as_many_parts_run_at_a_time_as_torch_has_threads_up_to_four(n: int) -> None:
    at_once = min(n, MOST)
    meeting = threading.Barrier(at_once)  # passed only by so many at once
    lock, running, most = threading.Lock(), 0, 0

    def part(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait(PATIENCE)
        with lock:
            running -= 1
        return number

    with threads(n):
        assert list(on_threads(part, range(2 * at_once))) == list(range(2 * at_once))
    assert most == at_once


@pytest.mark.parametrize("n", [1, 2, 16])
def test_after_an_error_no_further_part_is_begun_and_no_thread_is_left(n: int) -> None:
    before, raised = threading.active_count(), threading.Event()
    begun = []

    def part(number: int) -> None:
        begun.append(number)
        if number == 0:
            raised.set()
            raise ValueError("part 0")
        raised.wait(PATIENCE)
        threading.Event().wait(0.05)  # the caller hears of the error meanwhile

    with threads(n), pytest.raises(ValueError, match="part 0"):
        list(on_threads(part, range(10_000)))
    assert len(begun) < 100 * MOST
    assert threading.active_count() == before


@pytest.mark.parametrize("n", [1, 2, 16])
def test_a_caller_who_stops_early_waits_for_no_further_part(n: int) -> None:
    before, begun = threading.active_count(), []

    def part(number: int) -> None:
        begun.append(number)
        if number:
            threading.Event().wait(0.05)

    with threads(n):
        made = on_threads(part, range(10_000))
        next(made)
        made.close()
    assert len(begun) < 100 * MOST
    assert threading.active_count() == before


def walks() -> InteractionGraph:
    """Users who walk along a ring of items, with a step aside now and then."""
    rng = np.random.default_rng(2)
    return graph(
        [
            (f"u{user}", f"i{(start + step + rng.integers(3)) % 40}", 1.0, 1_000 * step + 1)
            for user, start in enumerate(rng.integers(0, 40, 90))
            for step in range(12)
        ]
    )


def test_rows_and_figures_are_the_same_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 50)  # some rows at a time
    monkeypatch.setattr(transitions, "PAIRS", 60)
    monkeypatch.setattr(evaluate, "BLOCK", 7)  # some users at a time
    made = walks()
    newest = held_out_edges(made)
    kept, held_out = made.subset(~newest), made.subset(newest)
    model = fit(made, Hyperparameters(learned_weight=0.0, vectors=16).usual()).candidate

    def work(_: object = None) -> list[np.ndarray]:
        near = neighbors(kept, 0.7, 0.5, 0.2, 12)
        then = transitions.transitions(kept, 0.5, 0.2, 0.5, 0.1, 5, 12)
        joined: list[Rows] = [
            near,
            then,
            together([(near, 0.5), (then, 2.0)], kept.n_items, 12, ALONE),
        ]
        figures = ndcgs(both(scorer(model, kept), popularity(kept)), kept, held_out)
        return [*(np.asarray(each) for of in joined for each in of), figures]

    with threads(1):
        alone = work()
    for n in (2, 4):
        with threads(n):
            two_at_once = side_by_side(work, [work], quiet)
            for found in (work(), *two_at_once):
                for one, several in zip(alone, found, strict=True):
                    np.testing.assert_array_equal(one, several)
