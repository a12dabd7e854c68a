"""What the log says of Redis's troubles: a line for each cause, and one when they are over."""

from __future__ import annotations

import logging
import time

from serving.redis.errors import RedisDown, RedisRefuses

RETRY_EVERY = 0.5  # seconds
STEADY = 10.0  # seconds without a refusal before Redis, which refused writes, counts as back


class Outage:
    """Whether Redis is to be left alone for a moment, and what the log knows of it."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._began = self._failed = -float("inf")
        self._refused = False
        self._told: set[str] = set()  # causes, since it began
        self.trouble = ""  # what is the matter with Redis now; empty if all works

    @property
    def paused(self) -> bool:
        """Whether something failed so short a time ago that nothing should be tried."""
        return time.monotonic() - self._failed < RETRY_EVERY

    def failed(self, error: RedisDown) -> None:
        """Take note of a failure; a line, unless this cause has had one since it began."""
        self._failed = time.monotonic()
        self.trouble = str(error)
        self._refused = isinstance(error, RedisRefuses)
        if not self._told:
            self._began = self._failed
        if error.code not in self._told:
            self._told.add(error.code)
            self._log.warning("%s; lists wait until it takes them.", error)

    def worked(self, left: bool) -> None:
        """Everything tried has worked, a write among it; `left`: there is more to be written.

        Near its limit of memory Redis takes one write and refuses the next. So after a refusal it
        is said to be back only when all is written and nothing was refused for a while.
        """
        steady = time.monotonic() - self._failed > STEADY and not left
        if self._told and (steady or not self._refused):
            self._log.info("Redis is back after %.0f s.", time.monotonic() - self._began)
            self._told.clear()
            self.trouble = ""
