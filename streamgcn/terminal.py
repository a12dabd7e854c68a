"""What the commands show: tables and results on stdout, errors and progress on stderr.

No text is read as markup, and text from outside is made visible (process/text.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Column, Table

from process.text import visible

out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)
PROGRESS_EVERY = 5.0  # seconds between two log lines, where there is no terminal


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line, however long it is."""
    console.print(visible(text), style=style, soft_wrap=True)


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], whole: str = ""
) -> None:
    """Print a table; a cell that is too long for its column goes on in the next line.

    Args:
        whole: the column whose cells stay on one line.
    """
    made = (Column(name, overflow="fold", no_wrap=name == whole) for name in columns)
    table = Table(*made, title=visible(title))
    for row in rows:
        table.add_row(*map(visible, row))
    out.print(table)


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
