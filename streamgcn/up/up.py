"""Everything on one machine: the rooms, the page, and a broker and a Redis where none is named."""

from __future__ import annotations

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
from streamgcn.up.folder import ADDRESSES, lock, write_addresses
from streamgcn.up.guard import STOP_SECONDS, Guard
from streamgcn.up.kept import Kept

ROOMS = ("consumer", "trainer", "serving")
KAFKA_PORT, REDIS_PORT = 9092, 6379  # those that the settings' defaults name
PORT_TRIES = 3  # another process may take a free port first
METRICS_PORTS = range(9_464, 12_464, 3)  # of the consumer; then the trainer's and serving's
LOST_EVENTS = "It keeps events in memory: what the consumer had not stored is lost."
SERVICE_SECONDS = 0.5  # of the services, which have nothing to lose, if the rooms have used all
WRONG_SETTINGS = 2  # exit code of a room that starting again does not help


class Up:
    """The rooms and what they need, as child processes."""

    def __init__(
        self,
        env: Mapping[str, str],
        folder: Path,
        stop: threading.Event | None = None,
        page_port: int | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            env: the environment; what is started is named in a copy of it, `self.env`.
            folder: for the edge store and the models, where `env` names no other place.
            stop: set where starting should be given up.
            page_port: of the page on the loopback interface; None: there is no page.
        """
        self.env = dict(env)
        self._given = set(env)
        self._folder = folder.absolute()
        self._stop = stop or threading.Event()
        self._page_port = page_port
        self._services: list[Kept] = []
        self._rooms: dict[str, Kept] = {}
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
        (self._folder / ADDRESSES).unlink(missing_ok=True)  # of the last time
        self._guard = Guard([taken])
        self._undo.append(self._guard.close)
        try:
            if "KAFKA_BOOTSTRAP_SERVERS" not in self.env:
                port = self._serve("broker", KAFKA_PORT, kafka_command, LOST_EVENTS)
                self.env["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{port}"
            if not is_set(self.env, "REDIS_URL"):
                place = self._folder / "redis"
                place.mkdir(exist_ok=True)
                command = partial(redis_command, folder=place)
                port = self._serve("Redis", REDIS_PORT, command)
                self.env["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
            self.env.setdefault("EDGE_STORE", str(self._folder / "edges"))
            self.env.setdefault("MODEL_STORE", str(self._folder / "models"))
            if self._page_port is not None:
                self.env.setdefault("STREAMGCN_METRICS_PORT", str(_three_free()))
            write_addresses(self._folder, self.addresses())
            for room in ROOMS:
                self._rooms[room] = Kept(partial(self._start, room))
            if self._page_port is not None:
                self._rooms["page"] = Kept(self._start_page)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        for each in (self._rooms.values(), self._services):
            children = [kept.child for kept in each]
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.stop(deadline)
            deadline = max(deadline, time.monotonic() + SERVICE_SECONDS)
        self._rooms.clear()
        self._services.clear()
        while self._undo:
            self._undo.pop()()

    def addresses(self) -> dict[str, str]:
        """The settings that other commands need beside those given, which may hold a password."""
        names = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "EDGE_STORE", "MODEL_STORE")
        return {name: self.env[name] for name in names if name in self.env.keys() - self._given}

    def watch(self) -> None:
        """Start what has ended again.

        Raises:
            SettingsError: a room refuses its settings.
            EmbeddedError: the guard was killed.
        """
        if self._guard.ended:
            raise EmbeddedError("the guard of the child processes was killed; start again")
        for service in self._services:
            service.watch()
        for room, kept in self._rooms.items():
            if kept.watch() != WRONG_SETTINGS:
                continue
            if room in ROOMS:
                raise SettingsError(f"the {room} refuses a setting; the line above says which")
            self._page_port = free_port()  # another process took the page's; its line says where

    def _start(self, room: str) -> Child:
        env = self.env
        if port := int(env.get("STREAMGCN_METRICS_PORT", "0") or 0):
            env = env | {"STREAMGCN_METRICS_PORT": str(port + ROOMS.index(room))}
        command = [sys.executable, "-m", "streamgcn", room]
        return Child("room", room, command, env, self._guard)

    def _start_page(self) -> Child:
        command = [sys.executable, "-m", "streamgcn", "page", "--port", str(self._page_port)]
        return Child("room", "page", command, self.env, self._guard)

    def _serve(
        self, name: str, wanted: int, command: Callable[[int], Sequence[str]], remark: str = ""
    ) -> int:
        """Start a service, whose output goes to a file in the folder; returns its port."""
        output = self._folder / f"{name.lower()}.log"
        output.unlink(missing_ok=True)  # of the last time
        for left in reversed(range(PORT_TRIES)):
            port = free_port(wanted)
            start = partial(
                Child, "service", name, command(port), dict(os.environ), self._guard, output
            )
            kept = Kept(start, remark)
            self._services.append(kept)
            try:
                wait_for_port(name, kept.child.process, port, self._stop)
            except EmbeddedError as error:
                if kept.child.ended() is None or not left:
                    raise EmbeddedError(f"{error}; {output} has the lines it wrote") from error
                self._services.remove(kept)  # another process may have taken the port
            else:
                break
        return port


def _three_free() -> int:
    """The first of three ports in a row that are free.

    The rooms take them only seconds later, so each `up` looks from a place of its own on.
    """
    for number in range(len(METRICS_PORTS)):
        first: int = METRICS_PORTS[(os.getpid() + number) % len(METRICS_PORTS)]
        if all(free_port(port) == port for port in range(first, first + len(ROOMS))):
            return first
    raise EmbeddedError("no ports are free for metrics; set STREAMGCN_METRICS_PORT")
