"""How long `up` waits before it starts a child again; test_up.py does it with real ones."""

import time
from collections.abc import Iterator
from itertools import count
from typing import cast

import pytest

from streamgcn.up.child import Child
from streamgcn.up.kept import FIRST, LIMIT, STEADY, Kept


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Dying:
    """A child that runs for so many seconds."""

    name = "trainer"

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._ends = clock, clock.now + seconds

    def ended(self) -> int | None:
        return -9 if self._clock.now >= self._ends else None


def waits(clock: Clock, lives: Iterator[float], tenths: int) -> list[float]:
    """The seconds from each end of a child to the next start, looked at ten times a second."""
    started: list[float] = []

    def start() -> Child:
        started.append(clock.now)
        return cast(Child, Dying(clock, next(lives)))

    kept, ends = Kept(start), []
    for tenth in range(tenths):
        clock.now = tenth / 10
        if kept.watch() is not None:
            ends.append(clock.now)
    return [round(begun - ended, 3) for ended, begun in zip(ends, started[1:], strict=False)]


def test_a_child_that_dies_again_and_again_is_started_after_longer_and_longer_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = waits(Clock(monkeypatch), (0.0 for _ in count()), 2_000)
    assert found[:7] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST, 32 * FIRST, LIMIT]
    assert set(found[7:]) == {LIMIT}


def test_a_child_that_ran_for_long_is_started_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = iter([0.0, 0.0, 0.0, STEADY + 1, 0.0, 0.0, 1_000.0])
    found = waits(Clock(monkeypatch), lives, 1_000)
    assert found == [FIRST, 2 * FIRST, 4 * FIRST, FIRST, 2 * FIRST, 4 * FIRST]
