"""One child process of `up`: a room, the page, or a service."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from streamgcn.up.guard import Guard, Kind

log = logging.getLogger("up")


class Child:
    """One child process in a session of its own, so that Ctrl-C reaches the parent alone."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        guard: Guard,
        output: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            output: a file that its lines are added to; None: they go to the terminal.
        """
        self.name = name
        self._kind: Kind = kind
        self._guard = guard
        with ExitStack() as stack:
            file = stack.enter_context(output.open("ab")) if output else None
            self.process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        guard.started(kind, self.process.pid)

    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        code = self.process.poll()
        if code is not None:
            self._guard.stopped(self._kind, self.process.pid)
        return code

    def ask_to_stop(self) -> None:
        """Send it SIGTERM if it runs."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self, deadline: float) -> None:
        """Wait until the monotonic clock says `deadline`, then kill it."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop in time and is killed.", self.name)
            self.process.kill()
            self.process.wait()
        self.ended()
