"""Users who were forgotten leave the snapshots."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
from safetensors import SafetensorError
from torch import Tensor

from consumer.edge.traces import matching
from process import atomic
from trainer.graph.ids import Ids
from trainer.lifecycle import files
from trainer.lifecycle.checks import edges_of_users, table_of_users
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.promotion import locked
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.trained_edges import Trained

log = logging.getLogger("trainer")

TRAINED = "trained.safetensors"
FILES = "tables.safetensors", "start.safetensors", TRAINED
USER_TABLES = {"base", "user_bias", "users"}  # tensors with a row a user
BROKEN = (SnapshotError, SafetensorError, ValueError, IndexError, TypeError)


def erase(snapshots: Snapshots, forgotten: Mapping[str, int]) -> list[str]:
    """Take users out by the digests of their ids. To repeat it does no harm.

    A snapshot that is or may have been live loses their rows, ids and edges. Another one is
    deleted, and so is a broken one that holds them. Where the ids cannot be read, a line of the log
    says so.

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
                if _may_be_needed(snapshots, version):
                    _blank(folder, users, numbers)
                else:
                    shutil.rmtree(folder)
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


def _may_be_needed(snapshots: Snapshots, version: str) -> bool:
    """Whether a snapshot is or was live, or nobody knows what is live."""
    try:
        live = snapshots.marks.live()
    except SnapshotError:
        return True
    return version == live or snapshots.marks.promoted_at(version) is not None


def _blank(folder: Path, users: pa.Array, numbers: list[int]) -> None:
    """Zero the users' rows and put the empty string for their ids, each file replaced at once.

    A snapshot with a broken file is deleted; what the disk refuses does not say that it is broken.
    """
    for name in FILES:
        path = folder / name
        if not path.exists():
            continue
        try:
            tensors = _without(path, numbers, len(users))
        except BROKEN:
            shutil.rmtree(folder)
            return
        _replace(path, partial(files.write_tensors, tensors=tensors, version=folder.name))
    # The ids last: as long as they are there, it is seen that there is something to be done.
    ids = Ids(users)
    ids.blank(numbers)
    write = partial(files.write_ids, column="user_id", ids=ids.values, version=folder.name)
    _replace(folder / "users.parquet", write)


def _without(path: Path, numbers: list[int], n_users: int) -> dict[str, Tensor]:
    """The tensors of a file, without what they tell of the users.

    All is checked before torch computes with it: torch's own errors do not say whether the file is
    broken or the machine lacks something.

    Raises:
        BROKEN: the file is broken.
    """
    tensors = files.read_tensors(path, path.parent.name)
    if path.name == TRAINED:
        edges = edges_of_users(path, tensors, n_users)
        return Trained(**edges).without(numbers).tensors()
    for name in USER_TABLES & tensors.keys():
        table_of_users(path, tensors, name, n_users)[numbers] = 0
    return tensors


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    draft = path.with_name(".draft")
    try:
        write(draft)
        atomic.replace(draft, path)
    except (OSError, SafetensorError, pa.ArrowException) as error:
        draft.unlink(missing_ok=True)
        raise SnapshotError(f"cannot write {path}: {error}") from error
