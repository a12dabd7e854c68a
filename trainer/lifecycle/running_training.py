"""What the trainer of a MODEL_STORE is doing, for whoever asks: a file while a training runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from process import atomic
from trainer.lifecycle.lease import holder

TRAINING = "training.json"
EVERY = 1.0  # seconds between two writes


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
    """The file as the trainer keeps it. A disk that refuses costs no training."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRAINING
        self._written = 0.0
        self._training = Training("", 0)

    @contextmanager
    def of(self, edges: int) -> Iterator[None]:
        """While inside, a training of a graph of so many edges runs."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._training, self._written = Training(now, edges), 0.0
        self._write()
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def note(self, stage: str, step: int, steps: int, loss: float | None = None) -> None:
        """So far is the training."""
        made = self._training
        made.stage, made.step, made.steps, made.loss = stage, step, steps, loss
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with suppress(OSError):
            atomic.write(self._path, msgspec.json.encode(self._training))


def doing(folder: Path) -> str:
    """Whether a trainer holds this MODEL_STORE, and what it does, in words."""
    held_by = holder(folder)
    if held_by is None:
        return "not running"
    running = training(folder)
    if running is None:
        return f"running ({held_by}), waiting for new edges"
    return f"running ({held_by}), {running}"


def training(folder: Path) -> Training | None:
    """The training that runs in a MODEL_STORE, None if none does."""
    if holder(folder) is None:
        return None
    try:
        return msgspec.json.decode((folder / TRAINING).read_bytes(), type=Training)
    except (OSError, msgspec.MsgspecError):
        return None
