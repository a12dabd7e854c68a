"""How a process shares the processors with others."""

from __future__ import annotations

import os
import time
from pathlib import Path

# About a tenth of the time of a process with niceness 0; if nothing else runs, all of it.
NICENESS = 10
# Linux shares the processors among sessions first, by a niceness of each, and then among the
# processes of a session.
OF_SESSION = Path("/proc/self/autogroup")
# Of the threads among which a step of a training is shared; read when torch is imported.
WHILE_WAITING = "OMP_WAIT_POLICY"
TRIES, PAUSE = 50, 0.1  # Linux takes one such change in 0.1 s, of all processes together


def sleep_while_waiting() -> None:
    """Let a thread that waits for another one sleep, unless the environment says otherwise.

    Else it keeps a processor busy, and two such threads beside another process hold each other up:
    where one of two processors had other work, a step of a training took over 270 ms, not 38.
    """
    os.environ.setdefault(WHILE_WAITING, "PASSIVE")


def yield_to_others() -> None:
    """Let other processes of the machine go first, from now on, with all threads begun after."""
    os.nice(max(0, NICENESS - os.nice(0)))
    if os.getsid(0) == os.getpid():  # as `up` starts it; else the others of the session would wait
        _lower_session()


def _lower_session() -> None:
    for _ in range(TRIES):
        try:
            OF_SESSION.write_text(str(NICENESS))
        except BlockingIOError:
            time.sleep(PAUSE)
        except OSError:  # another system has no such file, or lets nobody write there
            return
        else:
            return
