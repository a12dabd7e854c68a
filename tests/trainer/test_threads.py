"""Parts of a whole on several threads: all results in order, and errors as they were raised."""

import threading
from collections.abc import Iterator

import pytest
import torch

from trainer.threads import MOST, each


@pytest.fixture(params=[1, 2, 16])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_the_results_are_in_the_order_of_the_parts(threads: int) -> None:
    assert list(each(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    assert list(each(lambda n: n, range(0))) == []


def test_as_many_parts_run_at_a_time_as_torch_has_threads(threads: int) -> None:
    together = min(threads, MOST)
    meeting = threading.Barrier(together)  # passed only by so many at once

    def part(n: int) -> int:
        meeting.wait(20)
        return n

    assert list(each(part, range(2 * together))) == list(range(2 * together))


def test_an_error_reaches_the_caller_and_leaves_out_what_was_not_begun(threads: int) -> None:
    begun = []

    def part(n: int) -> int:
        begun.append(n)
        if n == 0:
            raise ValueError("part 0")
        return n

    with pytest.raises(ValueError, match="part 0"):
        list(each(part, range(10_000)))
    assert len(begun) < 10_000
    assert threading.active_count() < threads + 10  # those of the pool have ended


def test_a_caller_who_stops_early_waits_for_no_further_part(threads: int) -> None:
    begun: list[int] = []
    made = each(begun.append, range(10_000))
    next(made)
    made.close()
    assert len(begun) < 10_000
