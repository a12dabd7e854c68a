"""Two threads that share one progress."""

from threading import Event

import pytest

from trainer.fit.side_by_side import side_by_side
from trainer.model.progress import Progress, TrainingStopped, quiet


def until_stopped(told: Progress) -> str:
    while True:
        told("beside", 1, 2, None)


def test_each_job_returns_what_it_makes_the_first_jobs_first() -> None:
    jobs = [lambda _, n=n: f"second {n}" for n in range(3)]
    made = side_by_side(lambda _: "first", jobs, quiet)
    assert made == ["first", "second 0", "second 1", "second 2"]


def test_an_error_on_the_first_thread_stops_the_second_and_what_has_not_begun() -> None:
    begun, never = Event(), Event()

    def fail(_: Progress) -> str:
        begun.wait()
        raise ValueError("first")

    def second(told: Progress) -> str:
        begun.set()
        return until_stopped(told)

    def third(_: Progress) -> str:
        never.set()
        return ""

    with pytest.raises(ValueError, match="first"):
        side_by_side(fail, [second, third], quiet)
    assert not never.is_set()


def test_an_error_on_the_second_thread_is_raised_as_soon_as_the_first_one_tells() -> None:
    def fail(_: Progress) -> str:
        raise ValueError("second")

    with pytest.raises(ValueError, match="second"):
        side_by_side(until_stopped, [fail], quiet)


@pytest.mark.parametrize("first_tells", [True, False])
def test_a_progress_that_stops_a_training_stops_both_threads(first_tells: bool) -> None:
    told = 0

    def stopping(*_: object) -> None:
        nonlocal told
        told += 1
        if told == 5:
            raise TrainingStopped

    first = until_stopped if first_tells else lambda _: "first"
    with pytest.raises(TrainingStopped):
        side_by_side(first, [until_stopped], stopping)
    assert told == 5


def test_the_second_thread_is_shown_when_the_first_one_has_ended() -> None:
    first_told, second_told = Event(), Event()
    shown: list[object] = []

    def first(told: Progress) -> str:
        told("first", 1, 9, 0.5)
        first_told.set()
        second_told.wait()
        return ""

    def second(told: Progress) -> str:
        first_told.wait()
        told("second", 1, 3, None)
        second_told.set()
        while shown[-1] != ("second", 2, 3, None):  # as soon as the first one has ended
            told("second", 2, 3, None)
        return ""

    side_by_side(first, [second], lambda *told: shown.append(told))
    assert set(shown) == {("first", 1, 9, 0.5), ("second", 2, 3, None)}
