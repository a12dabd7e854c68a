"""Versioned snapshots of the model: written whole, checked when read, one of them live.

<MODEL_STORE>/<version>/tables.safetensors, users.parquet, items.parquet, manifest.json
<MODEL_STORE>/<version>/start.safetensors    what the next training goes on from
<MODEL_STORE>/<version>/trained.safetensors  the edges that it was trained on

Beside them are the marks (marks.py), which say what is live and what was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError
from torch import Tensor

from process import atomic
from process.settings import SettingsError
from trainer.embedding.kinds import KINDS
from trainer.lifecycle import checks, files
from trainer.lifecycle.manifest import VERSION, Manifest, Snapshot, SnapshotError, parse
from trainer.lifecycle.marks import Marks
from trainer.lifecycle.trained_edges import Trained

PRIVATE = 0o700  # of folders
UNREADABLE = (OSError, SafetensorError, msgspec.MsgspecError, pa.ArrowException, ValueError)


class Snapshots:
    """The snapshots in one folder."""

    def __init__(self, root: str) -> None:
        """Nothing is read or made yet.

        Raises:
            SettingsError: there is a file where the folder should be.
        """
        self.root = Path(root)
        self.marks = Marks(self.root)
        for place in (self.root, *self.root.parents):
            if place.exists():
                if not place.is_dir():
                    raise SettingsError(
                        f"MODEL_STORE={root} is refused: {place} is a file; name a folder"
                    )
                break

    def versions(self) -> list[str]:
        """All whole snapshots, oldest first; none where the folder cannot be read."""
        try:
            found = [path.name for path in self.root.iterdir() if VERSION.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(name for name in found if (self.root / name / "manifest.json").exists())

    def write(self, snapshot: Snapshot) -> None:
        """Write it beside the others; it is seen whole or not at all, also after a power cut.

        Raises:
            SnapshotError: the disk refuses; what was begun is deleted.
        """
        version = snapshot.manifest.version
        draft = self.root / f".{version}.draft"
        try:
            self.root.mkdir(PRIVATE, parents=True, exist_ok=True)
            draft.mkdir(PRIVATE)
            tensors = {"tables": snapshot.embeddings.tensors, "start": snapshot.start}
            if snapshot.trained:
                tensors["trained"] = snapshot.trained.tensors()
            for name, of in tensors.items():
                files.write_tensors(draft / f"{name}.safetensors", of, version)
            files.write_ids(draft / "users.parquet", "user_id", snapshot.user_ids, version)
            files.write_ids(draft / "items.parquet", "item_id", snapshot.item_ids, version)
            (draft / "manifest.json").write_bytes(_as_text(snapshot.manifest))
            for file in draft.iterdir():
                atomic.sync(file)
            atomic.replace(draft, self.root / version)
        except (OSError, SafetensorError, pa.ArrowException) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise SnapshotError(f"cannot write snapshot {self.root / version}: {error}") from error

    def describe(self, manifest: Manifest) -> None:
        """Write the manifest of a snapshot anew.

        Raises:
            SnapshotError: the disk refuses.
        """
        path = self.root / manifest.version / "manifest.json"
        try:
            atomic.write(path, _as_text(manifest))
        except OSError as error:
            raise SnapshotError(f"cannot write {path}: {error}") from error

    def promote(self, version: str) -> None:
        """Make a snapshot the live one.

        Raises:
            SnapshotError: there is no such snapshot, or the pointer cannot be written.
        """
        if version not in self.versions():
            raise SnapshotError(f"there is no snapshot {version} in {self.root}")
        self.marks.promote(version)

    def manifest(self, version: str) -> Manifest:
        """What a snapshot says of itself.

        Raises:
            SnapshotError: it is missing, broken, or of a newer format.
        """
        path = self._folder(version) / "manifest.json"
        with _named(path):
            manifest = parse(files.regular(path))
            checks.check_manifest(path, manifest)
        return manifest

    def read(self, version: str) -> Snapshot:
        """Load a snapshot to the CPU.

        Raises:
            SnapshotError: it is missing, broken or wrong.
        """
        folder, manifest = self._folder(version), self.manifest(version)
        with _named(folder):
            tensors = checks.read_tables(folder / "tables.safetensors", manifest)
            users = checks.read_ids(
                folder / "users.parquet", "user_id", version, manifest.users, blanks=True
            )
            items = checks.read_ids(folder / "items.parquet", "item_id", version, manifest.items)
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
        path = self._folder(manifest.version) / "start.safetensors"
        with _named(path):
            return checks.read_start(path, manifest)

    def trained(self, manifest: Manifest) -> Trained | None:
        """The edges that the snapshot was trained on; None where it does not say.

        Raises:
            SnapshotError: the file is broken or wrong.
        """
        path = self._folder(manifest.version) / "trained.safetensors"
        if not path.exists():
            return None  # the first version wrote none
        with _named(path):
            return Trained(**checks.read_trained(path, manifest))

    def user_ids(self, version: str) -> pa.Array:
        """The ids of a snapshot's user rows, "" for one who was forgotten; reads nothing else.

        Raises:
            SnapshotError: the file is missing, broken or wrong.
        """
        path = self._folder(version) / "users.parquet"
        with _named(path):
            return checks.read_ids(path, "user_id", version, blanks=True)

    def holding(self, user: str) -> list[str]:
        """Versions that hold the user; reads their files of ids alone.

        Raises:
            SnapshotError: a snapshot's users cannot be read.
        """
        return [
            version
            for version in self.versions()
            if pc.any(pc.equal(self.user_ids(version), user)).as_py()
        ]

    def _folder(self, version: str) -> Path:
        if not VERSION.fullmatch(version):
            raise SnapshotError(f"{version!r} is not the name of a snapshot")
        return self.root / version


def _as_text(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what reading raises into SnapshotError, with the path."""
    try:
        yield
    except SnapshotError:
        raise
    except UNREADABLE as error:
        raise SnapshotError(f"cannot read {path}: {error}") from error
