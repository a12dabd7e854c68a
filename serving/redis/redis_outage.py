"""Redis is away or refuses: a line for each cause, one when it is over, and when to try again.

Unlike process/outage.py it does not hold up the loop, which reads events meanwhile; it knows a
cause by the error's code; and a Redis that has refused writes is back only when it was steady.
"""

from __future__ import annotations

import logging
import time

from serving.redis.errors import RedisDown, RedisRefuses

RETRY_SECONDS = 0.5  # to the second try; then twice as long each time, up to
LONGEST_AWAY = 4.0  # where Redis does not answer, and
LONGEST_REFUSED = 30.0  # where it refuses, which somebody has to mend
STEADY = 10.0  # seconds without a refusal before Redis, which refused writes, counts as back


class RedisOutage:
    """Whether Redis is to be left alone for a moment, and what the log knows of it."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._began = self._again = -float("inf")
        self._works_since: float | None = None
        self._refused = False
        self._failures = 0
        self._told: set[str] = set()  # causes, since it began
        self.trouble = ""  # what is the matter with Redis now; empty if all works

    @property
    def paused(self) -> bool:
        """Whether something failed so short a time ago that nothing should be tried."""
        return time.monotonic() < self._again

    def failed(self, error: RedisDown) -> None:
        """Take note of a failure; a line, unless this cause has had one since it began."""
        now = time.monotonic()
        self.trouble = str(error)
        self._refused = isinstance(error, RedisRefuses)
        if not self._told:
            self._began = now
        self._works_since = None
        longest = LONGEST_REFUSED if self._refused else LONGEST_AWAY
        self._again = now + min(longest, RETRY_SECONDS * 2.0 ** min(self._failures, 30))
        self._failures += 1
        if error.code not in self._told:
            self._told.add(error.code)
            self._log.warning("%s; lists are written when Redis takes writes again.", error)

    def worked(self, left: bool) -> None:
        """Everything tried has worked, a write among it; `left`: there is more to be written.

        Near its limit of memory Redis takes one write and refuses the next. So after a refusal it
        is said to be back only when all is written and nothing was refused for a while.
        """
        if not self._told:
            return
        now = time.monotonic()
        self._works_since = now if self._works_since is None else self._works_since
        if self._refused and (left or now - self._works_since < STEADY):
            return
        self._log.info("Redis is back (away for %.0f s).", now - self._began)
        self._told.clear()
        self._failures = 0
        self.trouble = ""
