"""Everything on this machine: the three rooms, and a broker and a Redis where none is named."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from process.settings import SettingsError, is_set
from streamgcn.services.broker import kafka_command
from streamgcn.services.ports import EmbeddedError, free_port, wait_for_port
from streamgcn.services.redis import redis_command
from streamgcn.up.child import Child
from streamgcn.up.folder import lock
from streamgcn.up.guard import Guard

log = logging.getLogger("up")

ROOMS = ("consumer", "trainer", "serving")
KAFKA_PORT, REDIS_PORT = 9092, 6379  # those that the settings' defaults name
PORT_TRIES = 3  # another process may take a free port first
RESTARTS = 5  # a room that ends more often than this
WITHIN = 60.0  # in so many seconds is given up
WRONG_SETTINGS = 2  # exit code of a room that starting again does not help


class Up:
    """The rooms and what they need, as child processes."""

    def __init__(
        self, env: Mapping[str, str], folder: Path, stop: threading.Event | None = None
    ) -> None:
        """Nothing is started yet.

        Args:
            env: the environment; what is started is named in a copy of it, `self.env`.
            folder: for the edge store and the models, where `env` names no other place.
            stop: set where starting should be given up.
        """
        self.env = dict(env)
        self._given = set(env)
        self._folder = folder.absolute()
        self._stop = stop or threading.Event()
        self._services: list[Child] = []
        self._rooms: dict[str, Child] = {}
        self._ended: dict[str, list[float]] = {room: [] for room in ROOMS}
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        """Start everything.

        Raises:
            FolderInUse: another `up` is running here.
            EmbeddedError: a broker or a Redis cannot be started.
            Stopped: told to stop meanwhile.
        """
        taken = lock(self._folder)
        self._undo.append(lambda: os.close(taken))
        self._guard = Guard([taken])
        self._undo.append(self._guard.close)
        try:
            if "KAFKA_BOOTSTRAP_SERVERS" not in self.env:
                port = self._serve("Kafka", KAFKA_PORT, kafka_command)
                self.env["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{port}"
            if not is_set(self.env, "REDIS_URL"):
                place = self._folder / "redis"
                place.mkdir(exist_ok=True)
                port = self._serve("Redis", REDIS_PORT, partial(redis_command, folder=place))
                self.env["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
            self.env.setdefault("EDGE_STORE", str(self._folder / "edges"))
            self.env.setdefault("MODEL_STORE", str(self._folder / "models"))
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
        while self._undo:
            self._undo.pop()()

    def addresses(self) -> dict[str, str]:
        """The settings that other commands need beside those given, which may hold a password."""
        names = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "EDGE_STORE", "MODEL_STORE")
        return {name: self.env[name] for name in names if name in self.env.keys() - self._given}

    def watch(self) -> None:
        """Start a room again that has ended.

        Raises:
            SettingsError: a room refuses its settings.
            EmbeddedError: a broker, a Redis or a room keeps ending.
        """
        if self._guard.ended:
            raise EmbeddedError("the guard of the child processes was killed; start again")
        for service in self._services:
            if service.ended() is not None:
                raise EmbeddedError(f"the embedded {service.name} has ended; start again")
        for room, child in list(self._rooms.items()):
            code = child.ended()
            if code is None:
                continue
            if code == WRONG_SETTINGS:
                raise SettingsError(f"the {room} refuses a setting; the line above says which")
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
        command = [sys.executable, "-m", "streamgcn", room]
        self._rooms[room] = Child("room", room, command, env, self._guard)

    def _serve(self, name: str, wanted: int, command: Callable[[int], Sequence[str]]) -> int:
        """Start a service; returns its port."""
        for left in reversed(range(PORT_TRIES)):
            port = free_port(wanted)
            child = Child("service", name, command(port), os.environ, self._guard)
            self._services.append(child)
            try:
                wait_for_port(name, child.process, port, self._stop)
            except EmbeddedError:
                if child.ended() is None or not left:
                    raise
                self._services.remove(child)  # another process may have taken the port
            else:
                break
        return port
