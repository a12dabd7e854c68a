"""Model snapshots in a folder: drafts that are renamed, synced so that they outlast a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from process import atomic
from process.settings import SettingsError
from trainer.lifecycle.storage import MANIFEST, File, Found, State, Write, see_added

PRIVATE = 0o700  # of folders


class Folder:
    """One folder with a folder for each snapshot. A draft has a name that begins with a dot."""

    claims_are_sure = False

    def __init__(self, root: str | Path) -> None:
        """Nothing is read or made yet.

        Raises:
            SettingsError: there is a file where the folder should be.
        """
        self.root = Path(root)
        for place in (self.root, *self.root.parents):
            if place.exists():
                if not place.is_dir():
                    raise SettingsError(
                        f"MODEL_STORE={root} is refused: {place} is a file; name a folder"
                    )
                break

    def __str__(self) -> str:
        return str(self.root)

    def place(self, name: str) -> str:
        """The path of a file or folder."""
        return str(self.root / name)

    def check(self) -> None:
        """Nothing more than when it was opened: a volume may be mounted later."""

    def folders(self) -> list[str]:
        """Names of all that is there, files too."""
        try:
            return [path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return []

    def states(self, folder: str) -> dict[str, State]:
        """Name -> size and time of change in nanoseconds."""
        found: dict[str, State] = {}
        with suppress(FileNotFoundError):
            for path in (self.root / folder).iterdir():
                with suppress(FileNotFoundError):  # of a draft that was finished meanwhile
                    of = path.stat()
                    found[path.name] = of.st_size, of.st_mtime_ns
        return found

    def exists(self, name: str) -> bool:
        """Whether there is anything of this name."""
        return (self.root / name).exists()

    def file(self, name: str) -> File:
        """The path, if it is a plain file: to open a named pipe would wait for ever."""
        path = self.root / name
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if not path.is_file():
            raise OSError(f"{path} is not a file")
        return File(str(path), path)

    def look(self, name: str, most: int) -> Found | None:
        """It is opened, because some shared volumes tell the truth of a file only then."""
        path = self.root / name
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is not a file")
        try:
            with path.open("rb") as file:
                of = os.fstat(file.fileno())
                return Found(file.read(most), (of.st_size, of.st_mtime_ns), of.st_mtime)
        except FileNotFoundError:
            return None

    def write(self, name: str, what: bytes | Write) -> None:
        """Write a draft beside it, and put it there."""
        path = self.root / name
        if isinstance(what, bytes):
            atomic.write(path, what)
            return
        draft = path.with_name(".draft")
        try:
            what(draft)
            atomic.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def add(self, folder: str, files: Mapping[str, Write]) -> None:
        """Write to a draft of the folder, and sync what was written."""
        draft = self._draft(folder)
        self.root.mkdir(PRIVATE, parents=True, exist_ok=True)
        draft.mkdir(PRIVATE, exist_ok=True)
        for name, write in files.items():
            write(draft / name)
            atomic.sync(draft / name)

    def finish(self, folder: str, name: str, content: bytes, added: Collection[str]) -> None:
        """Rename the draft."""
        draft = self._draft(folder)
        see_added(str(draft), added, self.states(draft.name))
        (draft / name).write_bytes(content)
        atomic.sync(draft / name)
        atomic.replace(draft, self.root / folder)

    def abandon(self, folder: str) -> None:
        """Delete the draft."""
        shutil.rmtree(self._draft(folder), ignore_errors=True)

    def claim(self, name: str, content: bytes, was: State | None) -> bool:  # noqa: ARG002
        """Write it in any case: a folder knows no condition, so the caller looks a second time."""
        self.root.mkdir(PRIVATE, parents=True, exist_ok=True)
        atomic.write(self.root / name, content)
        return True

    def renew(self, name: str, content: bytes, was: State) -> bool:  # noqa: ARG002
        """Touch it: to write could undo the claim of another."""
        os.utime(self.root / name)
        return True

    def delete(self, name: str) -> None:
        """Delete a file."""
        (self.root / name).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """Delete a folder, what makes it whole first."""
        with suppress(FileNotFoundError):
            (self.root / folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.root / folder)

    def _draft(self, folder: str) -> Path:
        return self.root / f".{folder}.draft"

    def tidy(self, seconds: float) -> None:
        """Delete abandoned drafts: another trainer may be at work on one that changes."""
        for draft in self.root.glob(".*.draft"):
            if time.time() - _changed(draft) > seconds:
                if draft.is_dir():
                    shutil.rmtree(draft, ignore_errors=True)
                else:
                    draft.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else is inside meanwhile. Where a volume knows no locks, anybody may be.

        Raises:
            OSError: the folder is missing or cannot be opened.
        """
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _changed(draft: Path) -> float:
    """When a draft was changed last, epoch seconds."""
    try:
        return max(path.stat().st_mtime for path in (draft, *draft.glob("*")))
    except OSError:  # it is finished, or gone
        return time.time()
