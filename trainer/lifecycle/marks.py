"""Marks of the snapshots: which one is live, when each went live, and which were withdrawn.

<MODEL_STORE>/live                 the version that serving uses, replaced atomically
<MODEL_STORE>/<version>/promoted   when it went live last, epoch milliseconds
<MODEL_STORE>/<version>/withdrawn  an operator went back from it to an older one
"""

from __future__ import annotations

import time
from pathlib import Path

from process import atomic
from trainer.lifecycle import files
from trainer.lifecycle.manifest import VERSION, SnapshotError

LIVE = "live"
PROMOTED, WITHDRAWN = "promoted", "withdrawn"


class Marks:
    """The marks of the snapshots in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def live(self) -> str | None:
        """Version that the live pointer names, None before the first.

        Raises:
            SnapshotError: the pointer cannot be read, or names no version.
        """
        path = self._root / LIVE
        try:
            with files.regular(path).open("rb") as file:
                content = file.read(100).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SnapshotError(f"cannot read {path}: {error}") from error
        version = content.decode(errors="replace")
        if not VERSION.fullmatch(version):
            raise SnapshotError(f"{path} names no snapshot: {version!r}")
        return version

    def promote(self, version: str) -> None:
        """Mark a snapshot as live from now on; a mark of withdrawal goes.

        Raises:
            SnapshotError: the marks cannot be written.
        """
        folder = self._root / version
        try:
            (folder / WITHDRAWN).unlink(missing_ok=True)
            atomic.write(folder / PROMOTED, str(int(time.time() * 1000)).encode())
        except OSError as error:
            raise SnapshotError(f"cannot promote {version}: {error}") from error
        self.point_to(version)

    def point_to(self, version: str) -> None:
        """Make a snapshot the live one without a note of when.

        Raises:
            SnapshotError: the pointer cannot be written.
        """
        try:
            atomic.write(self._root / LIVE, version.encode() + b"\n")
        except OSError as error:
            raise SnapshotError(f"cannot make {version} live: {error}") from error

    def withdraw(self, version: str) -> None:
        """Note that a snapshot that was live is not to be gone back to.

        Raises:
            SnapshotError: the note cannot be written.
        """
        try:
            atomic.write(self._root / version / WITHDRAWN, b"")
        except OSError as error:
            raise SnapshotError(f"cannot withdraw {version}: {error}") from error

    def is_withdrawn(self, version: str) -> bool:
        """Whether an operator went back from it, and nobody has promoted it since."""
        return (self._root / version / WITHDRAWN).exists()

    def promoted_at(self, version: str) -> int | None:
        """When a snapshot went live last, epoch milliseconds: None for one that never did, 0 for
        one whose mark cannot be read.
        """
        try:
            return int((self._root / version / PROMOTED).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return 0
