"""Free ports of the loopback interface, and waiting until a server listens on one."""

from __future__ import annotations

import socket
import subprocess
import threading
import time

from process.errors import StreamGCNError
from process.shutdown import Stopped

READY_SECONDS = 30.0
STEADY_SECONDS = 0.2  # a server that found its port taken has ended by then


class EmbeddedError(StreamGCNError):
    """An embedded part cannot be started, or a room keeps ending; the text says what to do."""


def free_port(wanted: int = 0) -> int:
    """`wanted` if nothing listens there, else any free port of the loopback interface."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise EmbeddedError("no port is free on 127.0.0.1")


def wait_for_port(
    name: str,
    process: subprocess.Popen[bytes],
    port: int,
    stop: threading.Event | None = None,
    seconds: float = READY_SECONDS,
) -> None:
    """Wait until the process listens, `seconds` at most.

    Raises:
        EmbeddedError: it ended, or does not listen in time.
        Stopped: `stop` was set meanwhile.
    """
    stop = stop or threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if stop.is_set():
            raise Stopped(f"waiting for {name}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            stop.wait(0.05)
            continue
        stop.wait(STEADY_SECONDS)  # another process may be the one that listens
        if process.poll() is None:
            return
    raise EmbeddedError(f"{name} does not listen on port {port} (code {process.poll()})")
