"""One trainer at a time writes to a MODEL_STORE: it holds a file there and touches it.

The file says who holds it. Another trainer takes it over when it was not touched for EXPIRES
seconds by the other's own clock, so clocks need not agree; or at once, where the two run on one
machine and the holder's process is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from process import atomic
from process.errors import StreamGCNError

LEASE = "trainer.lease"
BEAT = 5.0  # seconds between two touches
EXPIRES = 60.0
SETTLE = 1.0  # seconds in which another that takes it at the same time would show
MOST = 4_096  # bytes of the file that are read

log = logging.getLogger("trainer")


class LeaseLost(StreamGCNError):
    """Another trainer has taken the MODEL_STORE over."""


class Holder(msgspec.Struct):
    """Who holds the lease. Fields that are not known are ignored."""

    id: str
    host: str = "unknown"
    pid: int = 0
    since: str = "unknown"
    machine: str = ""  # the boot and the pid namespace, "" where they are not known
    started: str = ""  # when the process was, as the kernel counts

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self) -> bool:
        """Whether it ran here and runs no more."""
        return (
            bool(self.machine) and self.machine == _machine() and self.started != _start(self.pid)
        )


class Lease:
    """Take it with `take`; a thread touches it until `release`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEASE
        self._me = Holder(
            uuid.uuid4().hex, socket.gethostname(), os.getpid(),
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), _machine(), _start(os.getpid()),
        )  # fmt: skip
        self._held = False
        self._seen: tuple[bytes, int] | None = None  # content and time of change,
        self._seen_at = 0.0  # and since when it has been so
        self._told = ""  # the holder that the log named last
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether it was held when it was looked at last."""
        return self._held

    def take(self) -> bool:
        """Take the lease if it is free or has expired; a line of the log names another holder.

        Raises:
            OSError: the folder cannot be read or written.
        """
        if self._held:
            try:
                self.confirm()
                return True
            except LeaseLost:
                pass  # who has it is told below
        found = self._read()
        holder = _parsed(found[0]) if found else None
        if found and not self._is_free(found, holder):
            named = str(holder or "it does not say which")
            if self._told != named:
                self._told = named
                log.warning("Another trainer holds %s: %s; standing by.", self._path, named)
            return False
        self._write()
        if self._end.wait(SETTLE) or not self._is_mine():
            return False
        self._held, self._told = True, ""
        if found and holder != self._me:
            log.warning(
                "Took over %s from the trainer %s, which has ended or did not write there for "
                "%.0f s.",
                self._path, holder or "unknown", EXPIRES,
            )  # fmt: skip
        if not self._thread:
            self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
            self._thread.start()
        return True

    def confirm(self) -> None:
        """See that no other has it, before something is written.

        Raises:
            LeaseLost: another has it.
            OSError: the folder cannot be read or written.
        """
        if self._read() is None:  # the whole folder may have been deleted
            self._write()
        if not self._is_mine():
            self._held = False
            raise LeaseLost(f"another trainer has taken {self._path} over")

    def release(self) -> None:
        """Give it back, so that another can take it at once."""
        self._end.set()
        if self._thread:
            self._thread.join()
        try:
            if self._held and self._is_mine():
                self._path.unlink()
        except OSError:
            pass  # it expires
        self._held = False

    def _beat(self) -> None:
        touched = time.monotonic()
        while not self._end.wait(BEAT):
            if not self._held:
                touched = time.monotonic()
                continue
            try:
                if self._is_mine():
                    os.utime(self._path)
                    touched = time.monotonic()
                else:
                    self._held = False
            except OSError:
                self._held = time.monotonic() - touched < EXPIRES

    def _write(self) -> None:
        self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
        atomic.write(self._path, msgspec.json.encode(self._me))

    def _is_mine(self) -> bool:
        found = self._read()
        holder = _parsed(found[0]) if found else None
        return holder is not None and holder.id == self._me.id

    def _is_free(self, found: tuple[bytes, int], holder: Holder | None) -> bool:
        now = time.monotonic()
        if found != self._seen:
            self._seen, self._seen_at = found, now
        if holder and (holder.id == self._me.id or holder.is_gone()):
            return True
        return now - self._seen_at > EXPIRES

    def _read(self) -> tuple[bytes, int] | None:
        """Content and time of change in nanoseconds, None without a file.

        It is opened, because some shared volumes tell the truth of a file only then.
        """
        try:
            with self._path.open("rb") as file:
                return file.read(MOST), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None


def holder(folder: Path) -> Holder | None:
    """Who holds the lease of a folder, None if nobody does or it has expired by this clock."""
    path = folder / LEASE
    try:
        found = _parsed(path.read_bytes()[:MOST])
        fresh = time.time() - path.stat().st_mtime < EXPIRES
    except OSError:
        return None
    return found if found and fresh and not found.is_gone() else None


def _parsed(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.MsgspecError:
        return None


def _machine() -> str:
    """This boot of this machine and the namespace of process numbers, "" where it is not Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended
