"""What the trainer of a MODEL_STORE is doing, for whoever asks: a file while a training runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec

from trainer.lifecycle.lease import holder
from trainer.lifecycle.storage import Storage

TRAINING = "training.json"
MOST = 10_000  # bytes of the file that are read
EVERY = 1.0  # seconds between two writes, at least, and so many times as long as the last took:
REST_TIMES = 20.0  # an object store that does not answer costs a training one twentieth


class Training(msgspec.Struct):
    """How far a training is. Fields that are not known are ignored."""

    since: str  # RFC 3339
    edges: int
    stage: str = "beginning"
    step: int = 0
    steps: int = 0
    loss: float | None = None

    def __str__(self) -> str:
        step = f", step {self.step} of {self.steps}" if self.steps else ""
        return f"training on {self.edges} edges since {self.since}: {self.stage}{step}"


class RunningTraining:
    """The file as the trainer keeps it. A storage that refuses costs no training."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._next = 0.0  # when it is written next
        self._training = Training("", 0)

    @contextmanager
    def of(self, edges: int) -> Iterator[None]:
        """While inside, a training of a graph of so many edges runs."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._training = Training(now, edges)
        self._write()
        try:
            yield
        finally:
            with suppress(OSError):
                self._storage.delete(TRAINING)

    def note(self, stage: str, step: int, steps: int, loss: float | None = None) -> None:
        """So far is the training."""
        made = self._training
        made.stage, made.step, made.steps, made.loss = stage, step, steps, loss
        if time.monotonic() >= self._next:
            self._write()

    def _write(self) -> None:
        began = time.monotonic()
        with suppress(OSError):
            self._storage.write(TRAINING, msgspec.json.encode(self._training))
        ended = time.monotonic()
        self._next = max(began + EVERY, ended + REST_TIMES * (ended - began))


def doing(storage: Storage) -> str:
    """Whether a trainer holds this MODEL_STORE, and what it does, in words."""
    held_by = holder(storage)
    if held_by is None:
        return "not running"
    running = training(storage)
    if running is None:
        return f"running ({held_by}), waiting for new edges"
    return f"running ({held_by}), {running}"


def training(storage: Storage) -> Training | None:
    """The training that runs in a MODEL_STORE, None if none does."""
    if holder(storage) is None:
        return None
    try:
        found = storage.look(TRAINING, MOST)
        return msgspec.json.decode(found.content, type=Training) if found else None
    except (OSError, msgspec.MsgspecError):
        return None
