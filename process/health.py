"""What a process knows of its own state: whether it works, and what it lacks to do its job.

Working and being ready are two questions. A process that waits for Kafka works, and is not ready.
Figures are a third thing: a process may work for minutes without a figure to tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SILENT_SECONDS = 60.0  # a loop that gives no sign of life for so long hangs


class Health:
    """The loop of a process writes it; the threads of the endpoint read it."""

    def __init__(self) -> None:
        """The process is starting: it works and is not ready."""
        self._alive = time.monotonic()
        self._lacking: dict[str, str] = {"start": "the process is starting"}
        self._busy: tuple[tuple[str, float], ...] = ()  # what, and since when; the innermost last

    def alive(self) -> None:
        """Give a sign of life: the loop has come round once more."""
        self._alive = time.monotonic()
        self._lacking.pop("start", None)

    def needs(self, **reasons: str) -> None:
        """For each part that the process needs, say why it is lacking; empty if it is there."""
        for part, reason in reasons.items():
            if reason:
                self._lacking[part] = reason
            else:
                self._lacking.pop(part, None)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """The loop does something meanwhile that takes its time and gives no sign of life."""
        outside = self._busy
        self._busy = (*outside, (what, time.monotonic()))
        try:
            yield
        finally:
            self._alive = time.monotonic()
            self._busy = outside

    @contextmanager
    def waiting(self, part: str) -> Iterator[None]:
        """The loop waits for `part`, such as "Kafka": it works and is not ready meanwhile."""
        reason = f"waiting for {part}"
        self._lacking[reason] = reason
        try:
            with self.busy(reason):
                yield
        finally:
            del self._lacking[reason]

    @property
    def doing(self) -> str:
        """What the loop is busy with and for how long; empty in its ordinary round."""
        busy = self._busy
        if not busy:
            return ""
        what, since = busy[-1]
        return f"{what} for {time.monotonic() - since:.0f} s"

    @property
    def works(self) -> bool:
        """False if the loop hangs."""
        return bool(self._busy) or time.monotonic() - self._alive < SILENT_SECONDS

    @property
    def lacking(self) -> list[str]:
        """Why the process cannot do its job now, a sentence for each reason; empty if it can."""
        return list(self._lacking.values())
