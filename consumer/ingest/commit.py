"""Writes batches on a thread of its own, so that the stream is read and heard meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

from consumer.edge.store import EdgeStore, Fenced, Log, StoreError
from consumer.ingest.batch import Batch
from consumer.ingest.dead_letters import DeadLetters
from consumer.kafka.client import StreamError
from process.outage import Outage
from process.retry import until_it_works
from process.shutdown import Stopped


class Writer:
    """Writes one batch at a time, again and again where the store or the broker refuses it."""

    def __init__(self, store: EdgeStore, letters: DeadLetters, log: logging.Logger) -> None:
        self._store = store
        self._letters = letters
        self._log = log
        self._thread = ThreadPoolExecutor(1, "writer")
        self._batch: Batch | None = None
        self._written: Future[bool] | None = None
        self._give_up = threading.Event()
        self._outage: Outage | None = None  # of the batch that is written
        self.commit_ms = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is a batch of which `wait_stored` has not told yet."""
        return self._batch is not None

    @property
    def trouble(self) -> str:
        """Why the batch cannot be written; empty without a batch, or if nothing is in the way."""
        outage = self._outage
        return outage.trouble if outage and self.busy else ""

    @property
    def conflicts(self) -> int:
        """Commits that another consumer's was before; each was tried again."""
        return self._store.conflicts

    def begin(self, batch: Batch, log: Log) -> None:
        """Start to write messages of a log; only if not busy."""
        self._batch = batch
        self._written = self._thread.submit(self._write, batch, log)

    def wait_stored(self, seconds: float = 0.0) -> Batch | None:
        """The batch once it is stored, waiting `seconds` for it; None before and without one.

        Raises:
            Fenced: another consumer had stored some of it; it is dropped.
        """
        if self._written is None:
            return None
        try:
            stored = self._written.result(seconds)
        except NotYet:
            return None
        except Fenced:
            self._batch = self._written = None
            raise
        batch, self._batch, self._written = self._batch, None, None
        return batch if stored else None

    def abandon(self) -> Batch | None:
        """Give up a write that has begun; the batch if it was stored in the end, else None."""
        self._give_up.set()
        batch, written = self._batch, self._written
        self._batch = self._written = None
        try:
            return batch if written and written.result() else None
        except Fenced:
            return None
        finally:
            self._give_up.clear()

    def close(self) -> None:
        """End the thread, and what it may wait for."""
        self._give_up.set()
        self._thread.shutdown(wait=False)
        self._letters.close()

    def _write(self, batch: Batch, log: Log) -> bool:
        """Whether the batch is stored; if not, the writer was told to give it up."""
        self._outage = Outage(self._log, "A batch cannot be stored", "Batches are stored again")

        def write() -> None:
            started = time.monotonic()
            self._letters.put(batch.noted)  # and takes off what is acknowledged
            batch.write(self._store, log)
            self.commit_ms = (time.monotonic() - started) * 1000

        def heals(error: BaseException) -> bool:
            return isinstance(error, StoreError | StreamError)

        try:
            until_it_works(write, heals, self._outage, self._give_up, "the edge store")
        except Stopped:
            return False
        return True
