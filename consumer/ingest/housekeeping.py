"""What keeps the edge store fast and as small as it should be, beside the commits."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from consumer.edge.store import Conflict, EdgeStore, StoreError
from consumer.settings import ConsumerSettings

EVERY = 100  # commits


class Housekeeping:
    """Tidies the edge store every so many commits, on a thread of its own."""

    def __init__(self, settings: ConsumerSettings, log: logging.Logger) -> None:
        self._settings = settings
        self._log = log
        self._thread = ThreadPoolExecutor(1, "housekeeping")
        self._running: Future[None] | None = None
        self._commits = 0

    def committed(self) -> None:
        """Count a commit; begin to tidy if it is time."""
        self._commits += 1
        if self._commits >= EVERY and (self._running is None or self._running.done()):
            self._commits = 0
            self._running = self._thread.submit(self._tidy)

    def close(self) -> None:
        """Wait for what is running."""
        self._thread.shutdown()

    def _tidy(self) -> None:
        try:
            store = EdgeStore(self._settings.edge_store, self._settings.kafka_topic)
            store.tidy(self._settings.retention_days)
        except Conflict:
            pass  # another consumer is at it
        except StoreError as error:
            self._log.warning("The edge store could not be tidied, trying later: %s.", error)
