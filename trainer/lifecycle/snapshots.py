"""Versioned snapshots of the model: written whole, read whole, one of them live.

<MODEL_STORE>/<version>/tables.safetensors, users.parquet, items.parquet, manifest.json
<MODEL_STORE>/<version>/start.safetensors   what the next training goes on from
<MODEL_STORE>/live           the version that serving uses, replaced atomically
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from consumer.edge.traces import matching
from process.errors import StreamGCNError
from trainer.embeddings import Embeddings
from trainer.graph import Ids

USER_TABLES = {"base", "user_bias", "users"}  # tensors with a row a user
KEPT = 5  # newest snapshots; the live one is always kept


class SnapshotError(StreamGCNError):
    """A snapshot cannot be read or written; the text names the file."""


class Manifest(msgspec.Struct):
    """What a snapshot was made of and how good it is."""

    version: str
    model: str
    layers: int
    cosine: bool
    trained_at: int  # epoch milliseconds
    users: int
    items: int
    edges: int
    store_version: int  # of the edge store
    offsets: dict[int, int]  # Kafka partition -> offset after the newest edge in it, in `log`
    settings: dict[str, str | int | float | None]  # with what was chosen
    metrics: dict[str, float]
    seconds: dict[str, float]
    log: int = 0  # of the edge store, that `offsets` belong to
    stamp: int = 0  # ingest time of the newest edge in it, epoch microseconds
    newest: int = 0  # epoch milliseconds of the newest edge
    chosen_at: int = 0  # edges when what the settings leave open was chosen
    rejected: str = ""  # why it did not go live


@dataclass(frozen=True)
class Snapshot:
    """A manifest, the embeddings, and the ids of their rows.

    start: named tensors, empty in a snapshot that was read; `Snapshots.start` reads them.
    """

    manifest: Manifest
    embeddings: Embeddings
    user_ids: pa.Array
    item_ids: pa.Array
    start: dict[str, Tensor] = field(default_factory=dict)


class Snapshots:
    """The snapshots in one folder."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def live(self) -> str | None:
        """Version of the live snapshot, None before the first."""
        try:
            return (self.root / "live").read_text().strip() or None
        except FileNotFoundError:
            return None

    def versions(self) -> list[str]:
        """All whole snapshots, oldest first."""
        return sorted(path.parent.name for path in self.root.glob("[0-9]*/manifest.json"))

    def write(self, snapshot: Snapshot) -> None:
        """Write it beside the others; it is seen whole or not at all.

        Raises:
            SnapshotError: the disk refuses; what was begun is deleted.
        """
        version = snapshot.manifest.version
        draft = self.root / f".{version}.draft"
        try:
            draft.mkdir(parents=True)
            tensors = {k: t.cpu().contiguous() for k, t in snapshot.embeddings.tensors.items()}
            save_file(tensors, draft / "tables.safetensors")
            save_file(snapshot.start, draft / "start.safetensors")
            pq.write_table(pa.table({"user_id": snapshot.user_ids}), draft / "users.parquet")
            pq.write_table(pa.table({"item_id": snapshot.item_ids}), draft / "items.parquet")
            manifest = msgspec.json.format(msgspec.json.encode(snapshot.manifest), indent=2)
            (draft / "manifest.json").write_bytes(manifest)
            draft.rename(self.root / version)
        except (OSError, SafetensorError, pa.ArrowException) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise SnapshotError(f"cannot write snapshot {self.root / version}: {error}") from error

    def promote(self, version: str) -> None:
        """Make a snapshot the live one.

        Raises:
            SnapshotError: there is no such snapshot, or the pointer cannot be written.
        """
        if version not in self.versions():
            raise SnapshotError(f"there is no snapshot {version} in {self.root}")
        draft = self.root / ".live.draft"
        try:
            draft.write_text(version + "\n")
            os.replace(draft, self.root / "live")
        except OSError as error:
            raise SnapshotError(f"cannot promote {version}: {error}") from error

    def read(self, version: str) -> Snapshot:
        """Load a snapshot to the CPU.

        Raises:
            SnapshotError: it is missing or broken.
        """
        folder = self.root / version
        try:
            manifest = self._manifest(folder)
            tensors = load_file(folder / "tables.safetensors")
            users = pq.read_table(folder / "users.parquet")["user_id"].combine_chunks()
            items = pq.read_table(folder / "items.parquet")["item_id"].combine_chunks()
        except (OSError, SafetensorError, msgspec.MsgspecError, pa.ArrowException) as error:
            raise SnapshotError(f"cannot read snapshot {folder}: {error}") from error
        recency = float(manifest.settings.get("recency") or 0.0)
        embeddings = Embeddings(manifest.model, manifest.layers, manifest.cosine, tensors, recency)
        return Snapshot(manifest, embeddings, users, items)

    def start(self, version: str) -> dict[str, Tensor]:
        """What a training can go on from, as it was written.

        Raises:
            SnapshotError: it is missing or broken.
        """
        path = self.root / version / "start.safetensors"
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise SnapshotError(f"cannot read {path}: {error}") from error
        return tensors

    def erase(self, forgotten: Mapping[str, int]) -> list[str]:
        """Take users out by the digests of their ids: of the live snapshot their rows and ids,
        of the others all. Returns the versions that held one. To repeat it does no harm.

        Args:
            forgotten: digest -> when the edge store took note of it, epoch microseconds; a snapshot
                of edges from behind this has the user only if it came again.

        Raises:
            SnapshotError: a snapshot cannot be read or written.
        """
        touched = []
        for version in self.versions():
            folder = self.root / version
            try:
                stamp = self._manifest(folder).stamp
                digests = {d for d, at in forgotten.items() if at > stamp or not stamp}
                users = pq.read_table(folder / "users.parquet")["user_id"].combine_chunks()
                numbers = matching(users, digests)
                if not numbers:
                    continue
                touched.append(version)
                if version == self.live():
                    _blank(folder, users, numbers)
                else:
                    shutil.rmtree(folder)
            except (OSError, SafetensorError, msgspec.MsgspecError, pa.ArrowException) as error:
                raise SnapshotError(f"cannot take a user out of {folder}: {error}") from error
        return touched

    def _manifest(self, folder: Path) -> Manifest:
        return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)

    def holding(self, user: str) -> list[str]:
        """Versions that hold the user; only their ids are read.

        Raises:
            SnapshotError: a snapshot cannot be read.
        """
        held = []
        for version in self.versions():
            path = self.root / version / "users.parquet"
            try:
                users = pq.read_table(path)["user_id"]
            except (OSError, pa.ArrowException) as error:
                raise SnapshotError(f"cannot read {path}: {error}") from error
            if pc.any(pc.equal(users, user)).as_py():
                held.append(version)
        return held

    def prune(self) -> None:
        """Delete all but the live and the newest snapshots, and drafts of a killed writer."""
        for version in self.versions()[:-KEPT]:
            if version != self.live():
                shutil.rmtree(self.root / version, ignore_errors=True)
        for draft in self.root.glob(".*.draft"):
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)


def _blank(folder: Path, users: pa.Array, numbers: list[int]) -> None:
    """Zero the users' rows and put the empty string for their ids, each file replaced at once."""
    for file in ("tables.safetensors", "start.safetensors"):
        tensors = load_file(folder / file)
        for name in USER_TABLES & tensors.keys():
            tensors[name][numbers] = 0
        save_file(tensors, folder / ".draft")
        os.replace(folder / ".draft", folder / file)
    # The ids last: as long as they are there, it is seen that there is something to be done.
    ids = Ids(users)
    ids.blank(numbers)
    pq.write_table(pa.table({"user_id": ids.values}), folder / ".draft")
    os.replace(folder / ".draft", folder / "users.parquet")


def new_version() -> str:
    """A version name that sorts by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
