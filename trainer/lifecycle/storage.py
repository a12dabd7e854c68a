"""Where model snapshots lie: a folder, or a place in an object store, behind one interface.

A name is relative to MODEL_STORE: "live", or "<version>/items.parquet". All reading and writing
of the models goes through here: folder.py and bucket.py are the two kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from consumer import path

State = tuple[int, int | str]  # size in bytes, and time of change in nanoseconds or e-tag
Target = Path | BinaryIO
Write = Callable[[Target], None]  # writes one file

MANIFEST = "manifest.json"  # written last, and deleted first: with it a snapshot is whole
VERSION = re.compile(r"\d{8}T\d{6}\.\d{1,6}Z", re.ASCII)  # the name of a snapshot


@dataclass(frozen=True)
class File:
    """A file to be read: what messages call it, and where its bytes are."""

    place: str
    content: Path | bytes

    def __str__(self) -> str:
        return self.place


class Found(NamedTuple):
    """A small file as it is now."""

    content: bytes
    state: State
    changed_at: float  # epoch seconds


class StoreTrouble(OSError):
    """The object store does not answer, or refuses: that tells nothing of what it holds."""


def see_added(place: str, added: Iterable[str], there: Collection[str]) -> None:
    """Raises FileNotFoundError where a file that was added to a folder is not there."""
    for name in sorted(set(added).difference(there)):
        raise FileNotFoundError(
            f"{place}/{name} is not there; all processes of a training must have the same "
            "MODEL_STORE"
        )


class Storage(Protocol):
    """One MODEL_STORE. All methods but `place` may raise OSError, where it is away or refuses."""

    claims_are_sure: bool  # whether `claim` lets one alone have it, without a second look

    def __str__(self) -> str: ...

    def place(self, name: str) -> str:
        """A name as messages have it."""
        ...

    def check(self) -> None:
        """Raises SettingsError where waiting does not help, OSError where it may."""
        ...

    def folders(self) -> list[str]:
        """Names of the folders, none where there is nothing yet."""
        ...

    def states(self, folder: str) -> dict[str, State]:
        """Name in the folder -> state of the file, of all that are there."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def file(self, name: str) -> File:
        """A file, to be read. Raises FileNotFoundError where there is none."""
        ...

    def look(self, name: str, most: int) -> Found | None:
        """A small file, at most so many bytes of it; None where there is none."""
        ...

    def write(self, name: str, what: bytes | Write) -> None:
        """Put a file there, whole or not at all, in the place of the one that is there."""
        ...

    def add(self, folder: str, files: Mapping[str, Write]) -> None:
        """Write files of a folder that does not count as whole yet; several processes may do so."""
        ...

    def finish(self, folder: str, name: str, content: bytes, added: Collection[str]) -> None:
        """Write the last file, with which a folder counts as whole and all its files are seen.

        Args:
            added: names of the files that must be there.

        Raises:
            FileNotFoundError: one is not, so this is not the place to which it was added.
        """
        ...

    def abandon(self, folder: str) -> None:
        """Delete what was added to a folder that is not finished, as far as that can be done."""
        ...

    def claim(self, name: str, content: bytes, was: State | None) -> bool:
        """Write a small file unless it is another by now than it `was`; None: there was none.

        Returns:
            Whether it was written. `content` must differ each time.
        """
        ...

    def renew(self, name: str, content: bytes, was: State) -> bool:
        """Give one's own file another state, unless it is another by now than it `was`."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Delete a folder, if it is there; from the first moment it no longer counts as whole."""
        ...

    def tidy(self, seconds: float) -> None:
        """Delete what a writer has left who was killed, unless it changed in so many seconds."""
        ...


def opened(uri: str) -> Storage:
    """The storage that MODEL_STORE names; nothing is read or made yet.

    Raises:
        SettingsError: it can name none.
    """
    from trainer.lifecycle.folder import Folder

    scheme, _, rest = uri.partition(":")
    if scheme == "file" or not (rest.startswith("//") or scheme in path.OBJECT_STORES):
        return Folder(uri)
    path.check(uri, f"MODEL_STORE={path.SECRETS.sub('//<hidden>@', uri)!r}")
    from trainer.lifecycle.bucket import Bucket  # an object store's client is loaded where needed

    return Bucket(uri)
