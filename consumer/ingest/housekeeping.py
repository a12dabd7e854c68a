"""What keeps the edge store fast and as small as it should be, beside the commits."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from consumer.edge.retention import SHORTEST, Retention
from consumer.edge.store import Conflict, EdgeStore
from consumer.settings import ConsumerSettings
from process.outage import Outage

COMMITS = 100  # after which the store is tidied
LONGEST_WAIT = 600.0  # seconds before another try


class Housekeeping:
    """Tidies the edge store every so many commits and so often, on a thread of its own."""

    def __init__(self, settings: ConsumerSettings, log: logging.Logger) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "housekeeping")
        self._running: Future[None] | None = None
        self._commits = 0
        self._log = log
        self._every = Retention(settings.retention_days).every  # also where nothing is committed
        self._at = time.monotonic() + min(self._every, SHORTEST)  # rows may have expired meanwhile
        self._outage = Outage(
            log, "The edge store cannot be tidied", "The edge store is tidied again", LONGEST_WAIT
        )

    def committed(self) -> None:
        """Count a commit."""
        self._commits += 1

    def look(self) -> None:
        """Hear how the last tidying ended; begin another one if it is time. Does not wait."""
        if self._running and not self._running.done():
            return
        if self._running:
            self._ended(self._running)
            self._running = None
        now = time.monotonic()
        many = self._commits >= COMMITS and not self._outage.lasts
        if many or now >= self._at:
            self._commits = 0
            self._at = now + self._every
            self._running = self._thread.submit(self._tidy)

    def close(self) -> None:
        """Begin nothing more; what is running may go on until the process ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ended(self, running: Future[None]) -> None:
        error = running.exception()
        if error is None:
            self._outage.worked()
        elif not isinstance(error, Conflict):  # of a conflict: another consumer is at it
            self._at = time.monotonic() + self._outage.failed(f"{type(error).__name__}: {error}")

    def _tidy(self) -> None:
        store = EdgeStore(self._settings.edge_store, self._settings.kafka_topic)
        days = self._settings.retention_days
        if gone := store.tidy(days):
            self._log.info(
                "%d rows older than %g days were removed from the edge store.", gone, days
            )
