"""Versioned snapshots of the model: written whole, checked when read, one of them live.

Each is a folder of MODEL_STORE (snapshot_files.py says what lies in it). Beside the folders are the
marks (marks.py), which say what is live and what was.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from trainer.embedding.kinds import KINDS
from trainer.lifecycle import checks, snapshot_files
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError, parse
from trainer.lifecycle.marks import Changing, FolderMarks, Marks
from trainer.lifecycle.object_marks import ObjectMarks
from trainer.lifecycle.parts import EVERYBODY, Share, origin, part_names
from trainer.lifecycle.parts_read import Users
from trainer.lifecycle.storage import MANIFEST, VERSION, opened
from trainer.lifecycle.trained_edges import Trained
from trainer.lifecycle.troubles import UNWRITABLE, named, reading, trouble
from trainer.ranks import ALONE, Ranks

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
        try:
            self.add(snapshot)
            self.finish(snapshot)
        except BaseException:
            self.storage.abandon(snapshot.manifest.version)
            raise

    def add(self, snapshot: Snapshot, ranks: Ranks = ALONE) -> None:
        """Write what this rank has of it: the users, and on the first rank the items.

        Raises:
            SnapshotError: the storage refuses.
            StoreAway: an object store does not answer.
        """
        version = snapshot.manifest.version
        made = snapshot_files.of_items(snapshot) if ranks.first else {}
        made |= snapshot_files.of_users(snapshot, ranks)
        try:
            self.storage.add(version, made)
        except UNWRITABLE as error:
            raise trouble(f"cannot write {self.storage.place(version)}", error) from error

    def finish(self, snapshot: Snapshot) -> None:
        """Make it whole, once all ranks have added what they have.

        Raises:
            SnapshotError: the storage refuses, or lacks what another rank has added.
            StoreAway: an object store does not answer.
        """
        version, added = snapshot.manifest.version, snapshot_files.names(snapshot)
        try:
            self.storage.finish(version, MANIFEST, _as_text(snapshot.manifest), added)
        except OSError as error:
            raise trouble(f"cannot write {self.storage.place(version)}", error) from error

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
        if not VERSION.fullmatch(version):
            raise SnapshotError(f"{version!r} is not the name of a snapshot")
        place = self.storage.place(f"{version}/{MANIFEST}")
        with named(place):
            found = self.storage.look(f"{version}/{MANIFEST}", MOST)
            if not found:
                raise SnapshotError(f"cannot read {place}: there is no such file")
            manifest = parse(place, found.content, version)
            checks.check_manifest(place, manifest)
        return manifest

    def read(self, version: str, share: Share = EVERYBODY) -> Snapshot:
        """Load a snapshot to the CPU.

        Args:
            share: whose rows are kept, of the users.

        Raises:
            SnapshotError: it is missing, broken or wrong.
        """
        manifest = self.manifest(version)
        users, of_users = Users(self.storage, manifest, share).tables()
        with reading(self.storage, f"{version}/tables.safetensors") as file:
            tensors = checks.read_tables(file, manifest, of_users)
        with reading(self.storage, f"{version}/items.parquet") as file:
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

    def start(self, manifest: Manifest, share: Share = EVERYBODY) -> dict[str, Tensor]:
        """What a training can go on from, as it was written; of these users alone.

        Raises:
            SnapshotError: it is missing, broken or wrong.
        """
        name, users = f"{manifest.version}/start.safetensors", Users(self.storage, manifest, share)
        with reading(self.storage, name) as file:
            kept = checks.read_start(file, manifest)
            if "items" in kept:
                return kept | {"users": users.start()}
            if manifest.parts and self.storage.exists(users.first("start")):
                raise SnapshotError(f"{file} lacks the tensor items")
            return kept

    def trained(self, manifest: Manifest, share: Share = EVERYBODY) -> Trained | None:
        """The edges that the snapshot was trained on, of these users; None where it does not say,
        on all ranks alike.

        Raises:
            SnapshotError: a file is broken or wrong.
        """
        users = Users(self.storage, manifest, share)
        if manifest.parts == 0:
            with named(self.storage.place(users.first("trained"))):
                if not self.storage.exists(users.first("trained")):
                    return None  # the first version wrote none
        return users.trained()

    def parts(self, version: str) -> list[str]:
        """The names of the parts whose ids are there: the manifest may be damaged.

        Raises:
            SnapshotError: the files cannot be listed.
        """
        with named(self.storage.place(version)):
            return part_names(self.storage.states(version))

    def user_ids(self, version: str, part: str) -> pa.Array:
        """The ids of a part's user rows, "" for one who was forgotten; reads nothing else.

        Raises:
            SnapshotError: the file is missing, broken or wrong.
        """
        with reading(self.storage, f"{version}/users{part}.parquet") as file:
            return checks.read_ids(file, "user_id", origin(version, part), blanks=True)

    def holding(self, user: str) -> list[str]:
        """Versions that hold the user; reads their files of ids alone, one at a time.

        Raises:
            SnapshotError: a snapshot's users cannot be read, or the snapshots cannot be listed.
        """
        return [
            version
            for version in self.every_version()
            if any(
                pc.any(pc.equal(self.user_ids(version, part), user)).as_py()
                for part in self.parts(version)
            )
        ]


def _as_text(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)
