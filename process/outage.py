"""Something that a process needs goes away and comes back: what the log says, how long to wait."""

from __future__ import annotations

import logging
import re
import time

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random_exponential

FIRST_SECONDS = 0.2  # before the second try; then twice as long each time
LIMIT_SECONDS = 10.0  # between two tries, at most
CAUSES = 20  # that have a line of their own in one outage


class Outage:
    """One WARNING line for each cause, one INFO line when it is over.

    Where nothing else is to be done meanwhile, retry.py waits with it.
    """

    def __init__(
        self, log: logging.Logger, down: str, up: str, limit: float = LIMIT_SECONDS
    ) -> None:
        """Nothing has failed yet.

        Args:
            down: what the log says when it begins, such as "Kafka at host:9092 does not answer".
            up: what it says in the end, such as "Kafka at host:9092 answers again".
            limit: seconds between two tries, at most.
        """
        self._log = log
        self._down, self._up = down, up
        half, most = FIRST_SECONDS / 2, limit / 2
        self._wait = wait_exponential(half, most) + wait_random_exponential(half, most)
        self._state = RetryCallState(Retrying(), None, (), {})  # which tenacity's waits look at
        self._tries = 0
        self._began = 0.0
        self._told: set[str] = set()
        self.trouble = ""  # what is the matter now; empty if the last try worked

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return self._tries > 0

    def failed(self, cause: object) -> float:
        """Take note of a failure, and say so unless this cause was told since the outage began.

        Returns:
            Seconds to wait before the next try: twice as long each time, up to the limit; up to
            half of them are left out at random, so that processes do not all come at once.
        """
        if not self._tries:
            self._began = time.monotonic()
        self._tries += 1
        text = str(cause) or type(cause).__name__
        self.trouble = f"{self._down} ({text})"
        kind = re.sub(r"\d+", "0", text)  # a number that changes is no new cause
        if kind not in self._told and len(self._told) < CAUSES:
            self._told.add(kind)
            self._log.warning("%s; trying until it works.", self.trouble)
        self._state.attempt_number = self._tries
        return float(self._wait(self._state))

    def worked(self) -> None:
        """Take note of a success, and say so if it ends an outage."""
        if self._tries:
            away = time.monotonic() - self._began
            self._log.info("%s (away for %.0f s).", self._up, away)
            self._tries = 0
            self.trouble = ""
            self._told.clear()
