"""What the commands show: tables and results on stdout, errors and progress on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

out = Console()
err = Console(stderr=True)
PROGRESS_EVERY = 5.0  # seconds between two log lines, where there is no terminal


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, else a log line every few seconds; call it with what is done."""
    if err.is_terminal:
        with Progress(
            *Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn(),
            console=err,
        ) as bar:  # fmt: skip
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    log = logging.getLogger(what)
    last = time.monotonic()

    def line(done: float) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY:
            last = time.monotonic()
            log.info("%.0f %% done.", 100 * done / total)

    yield line
