"""Model snapshots in an object store (S3, Google Cloud Storage, Azure), by the library obstore.

An object is written whole, and conditions of a write are checked by the store: "only if absent",
"only if it is what I have read". A snapshot counts as whole while its last file is there, so that
one is written last and deleted first. Credentials come from the usual environment.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from consumer.edge.answers import plain, setting_to_mend
from consumer.edge.bucket import client
from process.settings import SettingsError
from trainer.lifecycle.bucket_client import LARGE, LATER, SMALL, SOON, Changed, errors
from trainer.lifecycle.storage import (
    MANIFEST,
    VERSION,
    File,
    Found,
    State,
    StoreTrouble,
    Write,
    see_added,
)  # fmt: skip

if TYPE_CHECKING:
    from obstore import UpdateVersion

PART = 16 * 1024 * 1024  # bytes; what is larger goes up in several parts


class Bucket:
    """One place in an object store."""

    claims_are_sure = True

    def __init__(self, uri: str) -> None:
        """Nothing is asked yet.

        Raises:
            SettingsError: the URI or the credentials cannot be used.
        """
        self._uri = uri.rstrip("/")
        try:
            self._small, self._large = client(uri, SMALL, SOON), client(uri, LARGE, LATER)
        except (BaseError, ValueError) as error:
            raise SettingsError(f"MODEL_STORE={uri} is refused: {plain(error)}") from None

    def __str__(self) -> str:
        return self._uri

    def place(self, name: str) -> str:
        """The URI of a file or folder."""
        return f"{self._uri}/{name}"

    def check(self) -> None:
        """Ask for a list, which tells whether the bucket is there and the key is right.

        Raises:
            SettingsError: the store refuses, and waiting does not help.
            OSError: it does not answer.
        """
        try:
            obstore.list_with_delimiter(self._small)
        except (BaseError, OSError) as error:
            if mend := setting_to_mend(error, self._uri, "MODEL_STORE"):
                raise SettingsError(
                    f"MODEL_STORE={self._uri} is refused: {plain(error)}; {mend}"
                ) from None
            raise StoreTrouble(plain(error)) from error

    def folders(self) -> list[str]:
        """Names of what has files below it."""
        with errors():
            found = obstore.list_with_delimiter(self._small)["common_prefixes"]
        return [name.strip("/") for name in found]

    def states(self, folder: str) -> dict[str, State]:
        """Name -> size, e-tag and version."""
        return {name: (meta["size"], _tag(meta)) for name, meta in self._list(folder)}

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        try:
            with errors():
                obstore.head(self._small, name)
        except FileNotFoundError:
            return False
        return True

    def file(self, name: str) -> File:
        """The content, in memory."""
        with errors():
            return File(self.place(name), bytes(obstore.get(self._large, name).bytes()))

    def look(self, name: str, most: int) -> Found | None:
        """The object's first bytes, what changes with it, and when the store wrote it."""
        try:
            with errors():
                got = obstore.get(self._small, name)
                meta, content = got.meta, bytes(next(iter(got.stream(most)), b""))[:most]
        except FileNotFoundError:
            return None
        return Found(content, (meta["size"], _tag(meta)), meta["last_modified"].timestamp())

    def write(self, name: str, what: bytes | Write) -> None:
        """Put an object there."""
        content = what if isinstance(what, bytes) else _made(what)
        to = self._small if isinstance(what, bytes) else self._large
        with errors():
            obstore.put(to, name, content, chunk_size=PART)

    def add(self, folder: str, files: Mapping[str, Write]) -> None:
        """Put one object after the other."""
        for name, write in files.items():
            self.write(f"{folder}/{name}", write)

    def finish(self, folder: str, name: str, content: bytes, added: Collection[str]) -> None:
        """Put the last object."""
        see_added(self.place(folder), added, self.states(folder))
        self.write(f"{folder}/{name}", content)

    def abandon(self, folder: str) -> None:
        """Delete all objects."""
        with suppress(OSError):
            self.delete_folder(folder)

    def claim(self, name: str, content: bytes, was: State | None) -> bool:
        """Write it on the condition that it is what it was."""
        try:
            with errors():
                obstore.put(self._small, name, content, mode=_if(was) if was else "create")
        except (Changed, FileNotFoundError):  # the second: it is gone meanwhile
            # The answer to a first try may have been lost: then it is what this one has written.
            found = self.look(name, len(content) + 1)
            return found is not None and found.content == content
        return True

    def renew(self, name: str, content: bytes, was: State) -> bool:
        """Write it anew: an object that has the same content has the same e-tag."""
        return self.claim(name, content, was)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with errors(), suppress(FileNotFoundError):
            obstore.delete(self._small, name)

    def delete_folder(self, folder: str) -> None:
        """Delete what makes it whole first."""
        names = [f"{folder}/{name}" for name, _ in self._list(folder)]
        for name in sorted(names, key=lambda name: name != f"{folder}/{MANIFEST}"):
            self.delete(name)

    def tidy(self, seconds: float) -> None:
        """Delete snapshots that are not whole, unless another trainer may be writing them."""
        for folder in filter(VERSION.fullmatch, self.folders()):
            found = dict(self._list(folder))
            newest = max((meta["last_modified"].timestamp() for meta in found.values()), default=0)
            if MANIFEST not in found and time.time() - newest > seconds:
                self.delete_folder(folder)

    def _list(self, folder: str) -> Iterator[tuple[str, obstore.ObjectMeta]]:
        with errors():
            found = obstore.list(self._small, folder).collect()
        for meta in found:
            yield meta["path"].removeprefix(f"{folder}/"), meta


def _tag(meta: obstore.ObjectMeta) -> str:
    """What changes with an object: some stores look at the e-tag, others at the version."""
    return f"{meta['e_tag'] or ''} {meta['version'] or ''}"


def _if(was: State) -> UpdateVersion:
    """The condition that an object is what it was."""
    e_tag, _, version = str(was[1]).rpartition(" ")
    condition: UpdateVersion = {"e_tag": e_tag}
    if version:
        condition["version"] = version
    return condition


def _made(write: Write) -> memoryview:
    """What a file would have, in memory: nothing of a user is left on the disk of this machine."""
    buffer = BytesIO()
    write(buffer)
    return buffer.getbuffer()
