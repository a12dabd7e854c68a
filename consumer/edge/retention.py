"""How long an edge stays, and when to look: the one rule of the store, of graphs and of lists.

An edge expires when its last event is older than the retention, by the event's own timestamp. Each
process looks by its own clock, so that what it holds is what it would read again from the store.
"""

from __future__ import annotations

import time
from datetime import timedelta

SECONDS = 3_600.0  # between two looks, at most,
OVERDUE = 0.01  # and at most this share of the retention,
SHORTEST = 1.0  # but at least so many seconds


def oldest(days: float) -> int:
    """Epoch milliseconds of the oldest edge that stays now where edges stay for `days`."""
    return int((time.time() - timedelta(days).total_seconds()) * 1000)


class Retention:
    """The retention of a process."""

    def __init__(self, days: float | None) -> None:
        """`days` None: edges stay for good."""
        self._days = days
        self._at = 0.0  # of the next look, monotonic seconds

    @property
    def every(self) -> float:
        """Seconds between two looks."""
        if self._days is None:
            return SECONDS
        return min(SECONDS, max(SHORTEST, self._days * 86_400 * OVERDUE))

    def due(self) -> int | None:
        """Epoch milliseconds before which edges have expired, if it is time to look; else None."""
        now = time.monotonic()
        if self._days is None or now < self._at:
            return None
        self._at = now + self.every
        return oldest(self._days)
