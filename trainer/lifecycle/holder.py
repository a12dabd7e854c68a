"""Who holds the lease of a MODEL_STORE, as the file of the lease says it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from trainer.lifecycle.storage import Found


class Holder(msgspec.Struct):
    """Who holds the lease. Fields that are not known are ignored."""

    id: str
    host: str = "unknown"
    pid: int = 0
    since: str = "unknown"
    machine: str = ""  # the boot and the pid namespace, "" where they are not known
    started: str = ""  # when the process was, as the kernel counts
    beat: int = 0  # renewals, so that no two of them are the same

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self) -> bool:
        """Whether it ran here and runs no more."""
        return (
            bool(self.machine) and self.machine == machine() and self.started != started(self.pid)
        )


def parsed(found: Found) -> Holder | None:
    """The holder that a file names, None where it names none."""
    try:
        return msgspec.json.decode(found.content, type=Holder)
    except msgspec.MsgspecError:
        return None


def machine() -> str:
    """This boot of this machine and the namespace of process numbers, "" where it is not Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended
