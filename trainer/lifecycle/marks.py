"""Marks of the snapshots: which one is live, when each went live, and which were withdrawn.

Here for snapshots in a folder; object_marks.py has them in an object store.

<MODEL_STORE>/live                 the version that serving uses, replaced atomically
<MODEL_STORE>/<version>/promoted   when it went live last, epoch milliseconds
<MODEL_STORE>/<version>/withdrawn  an operator went back from it to an older one
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, TypeVar

from trainer.lifecycle.folder import Folder
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.storage import VERSION

LIVE = "live"
PROMOTED, WITHDRAWN = "promoted", "withdrawn"
MOST = 100  # bytes of a mark that are read
Result = TypeVar("Result")


class Seen(Protocol):
    """The marks at one moment, or as they are when they are asked for."""

    def live(self) -> str | None:
        """Version that the live pointer names, None before the first.

        Raises:
            SnapshotError: the pointer cannot be read, or names no version.
        """
        ...

    def promoted_at(self, version: str) -> int | None:
        """When a snapshot went live last, epoch milliseconds: None for one that never did, 0 for
        one whose mark cannot be read.
        """
        ...

    def is_withdrawn(self, version: str) -> bool:
        """Whether an operator went back from it, and nobody has promoted it since."""
        ...


class Changing(Seen, Protocol):
    """The marks for whoever changes them. All may raise SnapshotError: they cannot be written."""

    def promote(self, version: str, at: int | None = None) -> None:
        """Mark a snapshot as live; a mark of withdrawal goes.

        Args:
            at: since when, epoch milliseconds; None for from now on.
        """
        ...

    def point_to(self, version: str) -> None:
        """Make a snapshot the live one without a note of when."""
        ...

    def withdraw(self, version: str) -> None:
        """Note that a snapshot that was live is not to be gone back to."""
        ...

    def drop(self, version: str) -> None:
        """Delete a snapshot. Raises OSError where it cannot be deleted."""
        ...


class Marks(Protocol):
    """The marks of the snapshots in one MODEL_STORE."""

    def live(self) -> str | None:
        """As in Seen."""
        ...

    def now(self) -> Seen:
        """The marks, to be read.

        Raises:
            SnapshotError: they cannot be.
        """
        ...

    def change(self, act: Callable[[Changing], Result]) -> Result:
        """What `act` returns, which changes the marks as if nobody else did meanwhile.

        `act` may be called again, if another was quicker: it changes nothing but the marks, or
        what can be done twice.

        Raises:
            SnapshotError: the marks cannot be read or written.
        """
        ...


class FolderMarks:
    """Files in a folder, which is locked (flock) while they are changed."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def now(self) -> Seen:
        """This: each mark is read when it is asked for."""
        return self

    def live(self) -> str | None:
        """Version in the file `live`."""
        place = self._folder.place(LIVE)
        try:
            found = self._folder.look(LIVE, MOST)
        except OSError as error:
            raise SnapshotError(f"cannot read {place}: {error}") from error
        return version_in(found.content, place) if found else None

    def promoted_at(self, version: str) -> int | None:
        """What the snapshot's mark says."""
        try:
            found = self._folder.look(f"{version}/{PROMOTED}", MOST)
            return int(found.content) if found else None
        except (OSError, ValueError):
            return 0

    def is_withdrawn(self, version: str) -> bool:
        """Whether the snapshot has the mark."""
        return self._folder.exists(f"{version}/{WITHDRAWN}")

    def change(self, act: Callable[[Changing], Result]) -> Result:
        """`act`, while the folder is locked."""
        with ExitStack() as held:
            try:
                held.enter_context(self._folder.locked())
            except OSError as error:
                raise SnapshotError(f"cannot open {self._folder}: {error.strerror}") from error
            return act(self)

    def promote(self, version: str, at: int | None = None) -> None:
        """Write the time into the snapshot's mark, then the pointer."""
        try:
            self._folder.delete(f"{version}/{WITHDRAWN}")
            self._folder.write(f"{version}/{PROMOTED}", str(at or now_ms()).encode())
        except OSError as error:
            raise SnapshotError(f"cannot promote {version}: {error}") from error
        self.point_to(version)

    def point_to(self, version: str) -> None:
        """Write the pointer."""
        try:
            self._folder.write(LIVE, version.encode() + b"\n")
        except OSError as error:
            raise SnapshotError(f"cannot make {version} live: {error}") from error

    def withdraw(self, version: str) -> None:
        """Write the snapshot's mark."""
        try:
            self._folder.write(f"{version}/{WITHDRAWN}", b"")
        except OSError as error:
            raise SnapshotError(f"cannot withdraw {version}: {error}") from error

    def drop(self, version: str) -> None:
        """Delete a snapshot."""
        self._folder.delete_folder(version)


def now_ms() -> int:
    """Epoch milliseconds."""
    return int(time.time() * 1000)


def version_in(content: bytes, place: str) -> str:
    """The version that a pointer at `place` names.

    Raises:
        SnapshotError: it names none.
    """
    version = content.strip().decode(errors="replace")
    if not VERSION.fullmatch(version):
        raise SnapshotError(f"{place} names no snapshot: {version!r}")
    return version
