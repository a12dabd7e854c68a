"""Ends the child processes of `streamgcn up` if `up` itself ends without doing so, as by SIGKILL.

It is run as a program of its own, which imports nothing of the project. From `up` it reads lines:

    +room 123       process 123 was started; a `service` ends after all rooms
    -room 123       process 123 has ended

When the input ends, `up` has ended, and what it has left is told to stop, and then made to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Literal

STOP_SECONDS = 9.0  # a room ends by itself within 8; `up` with all children within 10
Kind = Literal["room", "service"]


class Guard:
    """The program, seen from `up`."""

    def __init__(self, held: Collection[int] = ()) -> None:
        """Start it. `held` are descriptors that it keeps open until all children have ended."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what kills the group of `up` does not reach it
            pass_fds=tuple(held),
            text=True,
        )

    @property
    def ended(self) -> bool:
        """Whether it was killed."""
        return self._process.poll() is not None

    def started(self, kind: Kind, pid: int) -> None:
        """Tell it of a child."""
        self._tell(f"+{kind} {pid}")

    def stopped(self, kind: Kind, pid: int) -> None:
        """Tell it that a child has ended, whose number may be given to another process now."""
        self._tell(f"-{kind} {pid}")

    def close(self) -> None:
        """End it, and what it still knows of."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin and not self.ended:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


def main() -> None:
    """Read until `up` ends, then end its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[str, set[int]] = {"room": set(), "service": set()}
    for line in sys.stdin:
        kind, pid = line[1:].split()
        if line.startswith("+"):
            left[kind].add(int(pid))
        else:
            left[kind].discard(int(pid))
    for pids in left.values():
        end(pids)


def end(pids: Collection[int]) -> None:
    """Ask processes to stop, and kill those that have not after a while."""
    running = {pid for pid in pids if _send(pid, signal.SIGTERM)}
    deadline = time.monotonic() + STOP_SECONDS
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        running = {pid for pid in running if _send(pid, 0)}
    for pid in running:
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
        with open(f"/proc/{pid}/stat") as state:  # where there is one, as on Linux
            return state.read().rpartition(")")[2].split()[0] != "Z"  # nobody fetches its code
    except ProcessLookupError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
