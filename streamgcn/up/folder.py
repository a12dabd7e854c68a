"""The folder in which `streamgcn up` keeps what it learns; one `up` has it at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from process import atomic
from process.errors import StreamGCNError

LOCK = "up.lock"
ADDRESSES = "up.json"  # settings, for commands that are run in the same place
ENDING_SECONDS = 20.0  # in which what a killed `up` has left is ended


class FolderInUse(StreamGCNError):
    """Another `up` has the folder."""


def lock(folder: Path) -> int:
    """Take the folder, which is made if it is missing.

    The kernel holds the lock, so one that was left by a process that is no more is no obstacle.

    Returns:
        A descriptor; the folder is taken until it is closed, here and in processes that inherit it.

    Raises:
        FolderInUse: another `up` has it; the text says which.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FolderInUse(f"{folder} cannot be written: {error.strerror}") from error
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            if not _lives(owner) and time.monotonic() < deadline:
                time.sleep(0.2)  # its children are about to end
                continue
            os.close(descriptor)
            raise FolderInUse(
                f"another `streamgcn up` (process {owner or 'unknown'}) uses {folder}; stop it, or "
                "start this one in another folder"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor


def write_addresses(folder: Path, addresses: Mapping[str, str]) -> None:
    """Note the settings that name what this `up` has started.

    Raises:
        FolderInUse: the folder cannot be written.
    """
    try:
        atomic.write(folder / ADDRESSES, msgspec.json.encode(dict(addresses)))
    except OSError as error:
        raise FolderInUse(f"{folder} cannot be written: {error.strerror}") from error


def addresses(folder: Path) -> dict[str, str]:
    """The settings of the `up` that runs in the folder now; none where none runs."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return {}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass  # it is held
    else:
        return {}
    finally:
        os.close(descriptor)
    try:
        return msgspec.json.decode((folder / ADDRESSES).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}  # it is starting


def _lives(pid: str) -> bool:
    if not pid.isdigit():
        return True  # it has not written its number yet
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
