"""A server that the workers of pytest-xdist share: the first starts it, the last one ends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path

import psutil
import pytest

from tests.services import Broker, wait_for

_started: list[Broker] = []  # kept, as they may run longer than the worker that started them


def common_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this run of the tests, the same one for all workers."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def shared(folder: Path, start: Callable[[Path], Broker]) -> Iterator[str]:
    """Address of the server that runs in the folder, started if none does."""
    told = folder / "address"
    with (folder / "door").open("w") as door, (folder / "users").open("w") as users:
        flock(door, LOCK_EX)  # one at a time comes or goes
        if not told.exists():
            _started.append(start(folder))
            told.write_text(f"{_started[-1].address} {_started[-1].pid}")
        address, pid = told.read_text().split()
        flock(users, LOCK_SH)
        flock(door, LOCK_UN)
        try:
            yield address
        finally:
            flock(door, LOCK_EX)
            flock(users, LOCK_UN)
            try:
                flock(users, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                pass  # others are there
            else:
                told.unlink()
                _end(psutil.Process(int(pid)))


def _end(server: psutil.Process) -> None:
    """End a server, which may be the child of another process."""
    server.terminate()

    def ended() -> bool:
        try:
            return server.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for("the end of the server", ended)
