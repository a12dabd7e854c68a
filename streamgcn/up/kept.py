"""A child of `up` that is started again when it ends, each time after a longer wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from streamgcn.up.child import Child

log = logging.getLogger("up")

FIRST, LIMIT = 0.5, 30.0  # seconds before a child is started again
STEADY = 60.0  # seconds after which a child that ends has ended for the first time


class Kept:
    """One child, and when it is to be started again."""

    def __init__(self, start: Callable[[], Child], remark: str = "") -> None:
        """Start it.

        Args:
            remark: what its end means, a sentence for the log.
        """
        self._start, self._remark = start, remark
        self.child = start()
        self._began = time.monotonic()
        self._wait = FIRST
        self._due: float | None = None  # when it is started again; None while it runs

    def watch(self) -> int | None:
        """Start it again if that is due; the exit code if it has ended since the last look."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self.child, self._began, self._due = self._start(), now, None
            return None
        code = self.child.ended()
        if code is None:
            return None
        if now - self._began > STEADY:
            self._wait = FIRST
        self._due = now + self._wait
        log.warning(
            "The %s ended with code %d and is started again in %.1f s.%s",
            self.child.name, code, self._wait, self._remark and f" {self._remark}",
        )  # fmt: skip
        self._wait = min(LIMIT, 2 * self._wait)
        return code
