"""The share of the processors that a process asks for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10  # a tenth of what a process has that has to answer at once; alone, all of it
# Linux shares the processors among sessions first, by a niceness of each, and then among the
# processes of a session.
OF_SESSION = Path("/proc/self/autogroup")


def yield_to_others() -> None:
    """Let other processes of the machine go first, from now on, with all threads begun after."""
    os.nice(max(0, NICENESS - os.nice(0)))
    if os.getsid(0) == os.getpid():  # as `up` starts it; else the others of the session would wait
        with suppress(OSError):  # another system has no such file
            OF_SESSION.write_text(str(NICENESS))
