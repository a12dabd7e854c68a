"""Users who were forgotten leave the snapshots."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from safetensors import SafetensorError
from torch import Tensor

from consumer.edge.traces import matching
from process import atomic
from trainer.graph.ids import Ids
from trainer.lifecycle import files
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.promotion import locked, named
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.trained_edges import Trained

log = logging.getLogger("trainer")

USER_TABLES = {"base", "user_bias", "users"}  # tensors with a row a user
BROKEN = (SnapshotError, SafetensorError, ValueError, IndexError, TypeError)


def erase(snapshots: Snapshots, forgotten: Mapping[str, int]) -> list[str]:
    """Take users out by the digests of their ids. To repeat it does no harm.

    A snapshot that is or was live loses their rows, ids and edges; another one is deleted, and so
    is a broken one that holds them. Where the ids cannot be read, a line of the log says so.

    Args:
        forgotten: digest -> when the edge store took note of it, epoch microseconds; a snapshot of
            edges from behind this has the user only if it came again.

    Returns:
        The versions that were changed or deleted.

    Raises:
        SnapshotError: a snapshot cannot be written.
    """
    touched = []
    for version in snapshots.versions():
        folder = snapshots.root / version
        try:
            users = snapshots.user_ids(version)
        except SnapshotError as error:
            log.warning("%s; if it holds users who were forgotten, delete %s.", error, folder)
            continue
        numbers = matching(users, _meant(snapshots, version, forgotten))
        if not numbers:
            continue
        with locked(snapshots):  # so that none is deleted that is about to go live
            try:
                if snapshots.marks.promoted_at(version) is None and version != named(snapshots):
                    shutil.rmtree(folder)
                else:
                    _blank(folder, users, numbers)
                touched.append(version)
            except OSError as error:
                raise SnapshotError(f"cannot take a user out of {folder}: {error}") from error
    return touched


def _meant(snapshots: Snapshots, version: str, forgotten: Mapping[str, int]) -> set[str]:
    """Digests of the users whom a snapshot may not hold."""
    try:
        stamp = snapshots.manifest(version).stamp
    except SnapshotError:
        stamp = 0  # whoever was forgotten at any time
    return {digest for digest, at in forgotten.items() if at > stamp or not stamp}


def _blank(folder: Path, users: pa.Array, numbers: list[int]) -> None:
    """Zero the users' rows and put the empty string for their ids, each file replaced at once."""
    try:
        for file in ("tables.safetensors", "start.safetensors"):
            tensors = files.read_tensors(folder / file, folder.name)
            for name in USER_TABLES & tensors.keys():
                tensors[name][numbers] = 0
            _save(tensors, folder / file)
        trained = folder / "trained.safetensors"
        if trained.exists():
            edges = Trained(**files.read_tensors(trained, folder.name))
            _save(edges.without(numbers).tensors(), trained)
    except BROKEN:
        shutil.rmtree(folder)
        return
    # The ids last: as long as they are there, it is seen that there is something to be done.
    ids = Ids(users)
    ids.blank(numbers)
    draft = folder / ".draft"
    files.write_ids(draft, "user_id", ids.values, folder.name)
    atomic.replace(draft, folder / "users.parquet")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    draft = path.with_name(".draft")
    files.write_tensors(draft, tensors, path.parent.name)
    atomic.replace(draft, path)
