"""The last net: an error that nobody foresaw costs the step that it happened in, not the process.

The loop runs each step in the net, by the step's name. The error becomes one line, and the step is
left out for a while that doubles each time; the other steps go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from process.errors import StreamGCNError, raised_at
from process.text import visible

FIRST_SECONDS = 0.5  # that a step is left out after its first failure; then twice as long, up to
LONGEST_SECONDS = 60.0
SAY_AGAIN_AFTER = 600.0  # seconds from one line to the next of the same failure


@dataclass
class _Step:
    failures: int = 0
    next_at: float = 0.0  # by the monotonic clock


class SafetyNet:
    """What has failed lately, by the step's name."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._steps: dict[str, _Step] = {}
        self._said: dict[tuple[str, str], float] = {}  # when, by step and place

    def run(self, step: str, act: Callable[[], object]) -> bool:
        """Run a step unless it is left out at the moment; returns whether it ran and worked.

        Raises:
            StreamGCNError: what is foreseen is for the caller.
        """
        if self.paused(step):
            return False
        try:
            act()
        except StreamGCNError:
            raise
        except Exception as error:
            self.catch(step, error)
            return False
        self._steps.pop(step, None)
        return True

    def paused(self, step: str) -> bool:
        """Whether the step failed so short a time ago that it is left out."""
        state = self._steps.get(step)
        return state is not None and time.monotonic() < state.next_at

    def catch(self, step: str, error: Exception) -> None:
        """Take note of an error; a line unless the same had one lately."""
        state = self._steps.setdefault(step, _Step())
        wait = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(state.failures, 30))
        state.failures, state.next_at = state.failures + 1, time.monotonic() + wait
        place = raised_at(error)
        last = self._said.get((step, place))
        if last is None or time.monotonic() - last > SAY_AGAIN_AFTER:
            self._said[step, place] = time.monotonic()
            self._log.error(
                "%s failed, which is a fault of StreamGCN (%s: %s, at %s); it is tried again and "
                "the rest goes on.",
                step[:1].upper() + step[1:], type(error).__name__, visible(str(error), 200),
                place,
            )  # fmt: skip
