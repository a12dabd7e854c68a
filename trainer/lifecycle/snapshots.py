"""Versioned snapshots of the model: written whole, checked when read, one of them live.

<MODEL_STORE>/<version>/tables.safetensors, users.parquet, items.parquet, manifest.json
<MODEL_STORE>/<version>/start.safetensors    what the next training goes on from
<MODEL_STORE>/<version>/trained.safetensors  the edges that it was trained on

Beside them are the marks (marks.py), which say what is live and what was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from trainer.embedding.kinds import KINDS
from trainer.lifecycle import checks, files
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError, parse
from trainer.lifecycle.marks import Changing, FolderMarks, Marks
from trainer.lifecycle.object_marks import ObjectMarks
from trainer.lifecycle.storage import MANIFEST, VERSION, File, Write, opened
from trainer.lifecycle.trained_edges import Trained
from trainer.lifecycle.troubles import UNWRITABLE, named, trouble

USERS = "users.parquet"
MOST = 10_000_000  # bytes of a manifest


class Snapshots:
    """The snapshots in one MODEL_STORE."""

    def __init__(self, uri: str) -> None:
        """Nothing is read or made yet.

        Raises:
            SettingsError: there is a file where the folder should be, or the URI is no place.
        """
        self.storage = opened(uri)
        self.marks: Marks
        if isinstance(self.storage, Folder):
            self.marks = FolderMarks(self.storage)
        else:
            self.marks = ObjectMarks(self.storage)

    def check(self) -> None:
        """See that an object store lets this process in; a folder is not looked at.

        Raises:
            SettingsError: it does not, and waiting does not help.
            StoreAway: it does not answer.
        """
        try:
            self.storage.check()
        except OSError as error:
            raise trouble(f"cannot use MODEL_STORE {self.storage}", error) from error

    def versions(self) -> list[str]:
        """All whole snapshots, oldest first; none where they cannot be read."""
        try:
            return self.every_version()
        except SnapshotError:
            return []

    def every_version(self) -> list[str]:
        """The same, for whoever must not miss one.

        Raises:
            SnapshotError: they cannot be read.
        """
        with named(str(self.storage)):
            found = sorted(filter(VERSION.fullmatch, self.storage.folders()))
            return [name for name in found if self.storage.exists(f"{name}/{MANIFEST}")]

    def write(self, snapshot: Snapshot) -> None:
        """Write it beside the others; it is seen whole or not at all, also after a power cut.

        Raises:
            SnapshotError: the storage refuses; what was begun is deleted.
            StoreAway: an object store does not answer.
        """
        version = snapshot.manifest.version
        tensors = {"tables": snapshot.embeddings.tensors, "start": snapshot.start}
        if snapshot.trained:
            tensors["trained"] = snapshot.trained.tensors()
        made: dict[str, Write] = {
            f"{name}.safetensors": partial(files.write_tensors, tensors=of, version=version)
            for name, of in tensors.items()
        }
        for name, column, ids in (
            ("users", "user_id", snapshot.user_ids),
            ("items", "item_id", snapshot.item_ids),
        ):
            write = partial(files.write_ids, column=column, ids=ids, version=version)
            made[f"{name}.parquet"] = write
        made[MANIFEST] = partial(files.write_bytes, content=_as_text(snapshot.manifest))
        try:
            self.storage.write_folder(version, made)
        except UNWRITABLE as error:
            place = self.storage.place(version)
            raise trouble(f"cannot write snapshot {place}", error) from error

    def describe(self, manifest: Manifest) -> None:
        """Write the manifest of a snapshot anew.

        Raises:
            SnapshotError: the storage refuses.
        """
        name = f"{manifest.version}/{MANIFEST}"
        try:
            self.storage.write(name, _as_text(manifest))
        except OSError as error:
            raise trouble(f"cannot write {self.storage.place(name)}", error) from error

    def promote(self, version: str) -> None:
        """Make a snapshot the live one.

        Raises:
            SnapshotError: there is no such snapshot, or the pointer cannot be written.
        """
        self.marks.change(lambda marks: self.promote_in(marks, version))

    def promote_in(self, marks: Changing, version: str) -> None:
        """The same, as a part of a change of the marks."""
        if version not in self.every_version():
            raise SnapshotError(f"there is no snapshot {version} in {self.storage}")
        marks.promote(version)

    def manifest(self, version: str) -> Manifest:
        """What a snapshot says of itself.

        Raises:
            SnapshotError: it is missing, broken, or of a newer format.
        """
        place = self._place(version, MANIFEST)
        with named(place):
            found = self.storage.look(f"{version}/{MANIFEST}", MOST)
            if not found:
                raise SnapshotError(f"cannot read {place}: there is no such file")
            manifest = parse(place, found.content, version)
            checks.check_manifest(place, manifest)
        return manifest

    def read(self, version: str) -> Snapshot:
        """Load a snapshot to the CPU.

        Raises:
            SnapshotError: it is missing, broken or wrong.
        """
        manifest = self.manifest(version)
        with self._file(version, "tables.safetensors") as file:
            tensors = checks.read_tables(file, manifest)
        with self._file(version, USERS) as file:
            users = checks.read_ids(file, "user_id", version, manifest.users, blanks=True)
        with self._file(version, "items.parquet") as file:
            items = checks.read_ids(file, "item_id", version, manifest.items)
        recency = float(manifest.settings.get("recency") or 0.0)
        embeddings = KINDS[manifest.model](
            manifest.model,
            manifest.layers,
            manifest.cosine,
            tensors,
            recency,
            bool(manifest.settings.get("dampening")),
        )
        return Snapshot(manifest, embeddings, users, items)

    def start(self, manifest: Manifest) -> dict[str, Tensor]:
        """What a training can go on from, as it was written.

        Raises:
            SnapshotError: it is missing, broken or wrong.
        """
        with self._file(manifest.version, "start.safetensors") as file:
            return checks.read_start(file, manifest)

    def trained(self, manifest: Manifest) -> Trained | None:
        """The edges that the snapshot was trained on; None where it does not say.

        Raises:
            SnapshotError: the file is broken or wrong.
        """
        name = f"{manifest.version}/trained.safetensors"
        with named(self.storage.place(name)):
            if not self.storage.exists(name):
                return None  # the first version wrote none
        with self._file(manifest.version, "trained.safetensors") as file:
            return Trained(**checks.read_trained(file, manifest))

    def user_ids(self, version: str) -> pa.Array:
        """The ids of a snapshot's user rows, "" for one who was forgotten; reads nothing else.

        Raises:
            SnapshotError: the file is missing, broken or wrong.
        """
        with self._file(version, USERS) as file:
            return checks.read_ids(file, "user_id", version, blanks=True)

    def holding(self, user: str) -> list[str]:
        """Versions that hold the user; reads their files of ids alone.

        Raises:
            SnapshotError: a snapshot's users cannot be read, or the snapshots cannot be listed.
        """
        return [
            version
            for version in self.every_version()
            if pc.any(pc.equal(self.user_ids(version), user)).as_py()
        ]

    @contextmanager
    def _file(self, version: str, name: str) -> Iterator[File]:
        """A file of a snapshot; what reading raises inside becomes SnapshotError, with the place.

        Raises:
            SnapshotError: it cannot be read.
        """
        with named(self._place(version, name)):
            yield self.storage.file(f"{version}/{name}")

    def _place(self, version: str, name: str) -> str:
        if not VERSION.fullmatch(version):
            raise SnapshotError(f"{version!r} is not the name of a snapshot")
        return self.storage.place(f"{version}/{name}")


def _as_text(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)
