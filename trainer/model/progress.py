"""How a training says how far it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

Progress = Callable[[str, int, int, float | None], None]  # stage, steps done, steps, loss


class TrainingStopped(Exception):
    """Training was told to stop; nothing of it is kept."""


def quiet(stage: str, done: int, steps: int, loss: float | None) -> None:
    """The progress that shows nothing."""


class SharedProgress:
    """One progress for two threads, of which one at a time is heard."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._one_at_a_time = progress, Lock()
        self._at: tuple[str, int, int, float | None] = ("beginning", 1, 1, None)

    def __call__(self, stage: str, done: int, steps: int, loss: float | None) -> None:
        """What the first thread says is shown."""
        with self._one_at_a_time:
            self._at = stage, done, steps, loss
            self._progress(*self._at)

    def beside(self, stage: str, done: int, steps: int, loss: float | None) -> None:  # noqa: ARG002
        """A sign of life of the second thread, which is told to stop as the first one is."""
        with self._one_at_a_time:
            self._progress(*self._at)
