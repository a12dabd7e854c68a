"""What a snapshot says of itself, and the names that snapshots have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
from torch import Tensor

from process.errors import StreamGCNError
from trainer.embedding.embeddings import Embeddings
from trainer.lifecycle.trained_edges import Trained

FORMAT = 2  # of a snapshot; raised when what is written cannot be read by older code
PARTS_SINCE = 2  # users lie in parts
STAMP = "%Y%m%dT%H%M%S.%fZ"


class SnapshotError(StreamGCNError):
    """A snapshot cannot be read or written; the text names the file and what is wrong."""


class StoreAway(SnapshotError):
    """The object store does not answer, or refuses, so nobody knows what is wrong with a snapshot
    or whether anything is."""


class Manifest(msgspec.Struct):
    """What a snapshot was made of and how good it is. Fields that are not known are ignored."""

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
    chosen_at: int = 0  # edges when what the settings leave open was chosen
    rejected: str = ""  # why it did not go live
    parts: int = 1  # in which the users lie; 0 in format 1, where they lie with the items
    format: int = FORMAT


class _Format(msgspec.Struct):
    format: int = 1  # the first version did not say


@dataclass(frozen=True)
class Snapshot:
    """A manifest, the embeddings, and the ids of their rows.

    start, trained: left out of a snapshot that was read; `Snapshots` reads them by themselves.
    """

    manifest: Manifest
    embeddings: Embeddings
    user_ids: pa.Array
    item_ids: pa.Array
    start: dict[str, Tensor] = field(default_factory=dict)
    trained: Trained | None = None


def parse(place: str, content: bytes, version: str) -> Manifest:
    """Read a manifest that lies at `place`, in the folder of a version.

    Raises:
        SnapshotError: it is no manifest of a snapshot of this name, or of a newer format.
    """
    try:
        made_by = msgspec.json.decode(content, type=_Format).format
        if made_by > FORMAT:
            raise SnapshotError(
                f"{place} has format {made_by}, and this version of StreamGCN reads up to "
                f"{FORMAT}: install the version that wrote it"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"{place} is no manifest: {error}") from error
    manifest.format = made_by
    if made_by < PARTS_SINCE:
        manifest.parts = 0
    if manifest.version != version:
        raise SnapshotError(f"{place} is of another snapshot, {manifest.version!r}")
    return manifest


def new_version(others: Sequence[str] = ()) -> str:
    """A version name that sorts by time, behind all `others` even if the clock went back."""
    now = datetime.now(UTC)
    if others:
        newest = datetime.strptime(max(others), STAMP).replace(tzinfo=UTC)
        now = max(now, newest + timedelta(microseconds=1))
    return now.strftime(STAMP)
