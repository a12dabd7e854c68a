"""The rooms as processes of their own, on a real broker and a real Redis."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from deltalake import DeltaTable

from serving.redis.store import Store
from serving.settings import ServingSettings
from tests.commands import Command, run, without_settings
from tests.services import PATIENCE, patient

Process = Command | subprocess.Popen[bytes]


class Rooms:
    """One topic, one edge store, one prefix, all new; and the rooms that run on them."""

    def __init__(self, folder: Path, kafka: str, redis_url: str, **settings: str) -> None:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.folder = folder
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "KAFKA_TOPIC": name,
            "KAFKA_GROUP": name,
            "REDIS_URL": redis_url,
            "REDIS_PREFIX": name,
            "EDGE_STORE": str(folder / "edges"),
            "MODEL_STORE": str(folder / "models"),
        }
        # Three processes on few cores: one thread each is quicker than a crowd that spins.
        self.env = without_settings() | {"OMP_NUM_THREADS": "1"} | given | settings
        own = {key: value for key, value in self.env.items() if key in given or key in settings}
        names = {key.lower().removeprefix("streamgcn_"): value for key, value in own.items()}
        self.settings = ServingSettings.model_validate(names)
        self.store = Store(patient(redis_url), name)
        self._running: dict[str, Process] = {}

    def start(self, *rooms: str, **settings: str) -> None:
        for room in rooms:
            with (self.folder / f"{room}.log").open("ab") as log:
                self._running[room] = self.process(room, self.env | settings, log)

    def start_another(self, room: str, **settings: str) -> str:
        """One more process of a room; returns the name that it has here."""
        name = next(name for n in count(2) if (name := f"{room} {n}") not in self._running)
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = self.process(room, self.env | settings, log)
        return name

    def process(self, room: str, env: Mapping[str, str], log: IO[bytes]) -> Process:
        """A process of a room that starts; torch has one thread in it, whatever `env` says."""
        return Command([room], env, stderr=log)

    def start_publishing(self, file: Path) -> None:
        """`streamgcn publish` in the background, one message an event."""
        self._running["publish"] = Command(["publish", "--json", str(file)], self.env)

    def kill(self, room: str) -> None:
        """SIGKILL, as a crash."""
        self._running[room].kill()
        self._running.pop(room).wait()

    def stop(self, room: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code."""
        self._running[room].send_signal(number)
        return self._running.pop(room).wait(PATIENCE)

    def pid(self, room: str) -> int:
        """Raises KeyError while it does not run."""
        return self._running[room].pid

    def log(self, room: str) -> str:
        return (self.folder / f"{room}.log").read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of streamgcn with the same settings, to its end."""
        return run(arguments, self.env)

    def items(self, user: str) -> list[str]:
        """The items of the user's list, none where there is no list."""
        found = self.store.user(user)
        return found.items if found else []

    def rows(self) -> int:
        """Rows of the edge store, counted by Delta Lake's own reader."""
        if not (self.folder / "edges" / "_delta_log").exists():
            return 0
        count: int = DeltaTable(str(self.folder / "edges")).count()
        return count

    def __enter__(self) -> Rooms:
        return self

    def __exit__(self, *_: object) -> None:
        for room in list(self._running):
            self.kill(room)
        self.store.close()


@contextmanager
def started(rooms: Rooms) -> Iterator[Rooms]:
    """All three rooms, killed at the end."""
    with rooms:
        rooms.start("consumer", "trainer", "serving")
        yield rooms
