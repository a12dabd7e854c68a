"""How a training says how far it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int, float | None], None]  # stage, steps done, steps, loss


class TrainingStopped(Exception):
    """Training was told to stop; nothing of it is kept."""


def quiet(stage: str, done: int, steps: int, loss: float | None) -> None:
    """The progress that shows nothing."""
