"""What a library writes to stderr by itself becomes lines of the log.

The Delta library, for one, writes several lines for each commit that a full disk refuses. Between
the lines of a JSON log these would be no JSON, and there would be a hundred of them a minute.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from process.text import visible

TOLD = 100  # texts that are said once; behind them nothing more is said
CHARACTERS = 500  # of a line that are shown

log = logging.getLogger("libraries")


@contextmanager
def own_stderr() -> Iterator[None]:
    """What others write to descriptor 2 while inside is logged; `sys.stderr` is the real one.

    Each text is said once, numbers in it apart.
    """
    sys.stderr.flush()
    before, real = (
        sys.stderr,
        os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace"),
    )
    read, written = os.pipe()
    os.dup2(written, 2)
    os.close(written)
    sys.stderr = real
    faulthandler.enable(real)
    thread = threading.Thread(target=_say, args=(read,), name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(real.fileno(), 2)  # which closes the pipe, so that the thread ends
        thread.join()
        faulthandler.disable()
        sys.stderr = before
        real.flush()


def _say(read: int) -> None:
    told: set[str] = set()
    with os.fdopen(read, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            kind = re.sub(r"\d+", "0", line)
            if line.strip() and kind not in told and len(told) < TOLD:
                told.add(kind)
                log.warning("A library says: %s", visible(line.strip(), CHARACTERS))
