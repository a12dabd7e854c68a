"""How far a training is: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bar

from process.log import Figures
from trainer.lifecycle.running_training import RunningTraining
from trainer.model.progress import Progress

LINE_EVERY = 10.0  # seconds between two log lines of a training


@contextmanager
def shown(
    figures: Figures, current: RunningTraining, look: Callable[[], None]
) -> Iterator[Progress]:
    """The progress of one training; the bar is gone when the inside ends, however it ends.

    Args:
        current: is told, for others to read.
        look: is called at each step; what it raises ends the training.
    """
    bar = Bar(console=Console(stderr=True), transient=True) if sys.stderr.isatty() else None
    task = bar.add_task("training") if bar else None
    started = line = time.monotonic()
    at = ""

    def progress(stage: str, done: int, steps: int, loss: float | None) -> None:
        nonlocal line, started, at
        now = time.monotonic()
        if stage != at:
            started, at = now, stage
        current.note(stage, done, steps, loss)
        if bar and task is not None:
            bar.start()
            bar.update(task, total=steps, completed=done, description=stage)
            if done == steps:
                bar.stop()
        look()
        if now - line >= LINE_EVERY:
            line = now
            figures.report(
                "training",
                stage=stage.replace(" ", "_"),
                step=done,
                steps=steps,
                loss="-" if loss is None else round(loss, 4),
                remaining_s=max(0, round((now - started) / done * (steps - done))),
            )

    try:
        yield progress
    finally:
        if bar:
            bar.stop()
