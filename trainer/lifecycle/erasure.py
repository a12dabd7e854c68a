"""Users who were forgotten leave the snapshots."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import pyarrow as pa
from safetensors import SafetensorError
from torch import Tensor

from consumer.edge.traces import matching
from trainer.graph.ids import Ids
from trainer.lifecycle import files
from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.marks import Changing
from trainer.lifecycle.parts import OF_USERS, origin
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import File, Storage, Write
from trainer.lifecycle.troubles import trouble
from trainer.lifecycle.users_checked import edges_of_users, table_of_users

log = logging.getLogger("trainer")

FILES = "tables", "start", "trained"  # of a part, besides the ids
Held = dict[str, list[int]]  # name of a part -> numbers of users in it
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
        SnapshotError: a snapshot cannot be written, or an object store does not answer.
    """
    touched = []
    for version in snapshots.every_version():
        held = _held(snapshots, version, _meant(snapshots, version, forgotten))
        if not held:
            continue
        try:
            snapshots.marks.change(partial(_take_out, snapshots, version, held))
        except OSError as error:
            place = snapshots.storage.place(version)
            raise SnapshotError(f"cannot take a user out of {place}: {error}") from error
        touched.append(version)
    return touched


def _held(snapshots: Snapshots, version: str, digests: set[str]) -> Held:
    """The parts that hold such users, and these users' numbers in the part."""
    held: Held = {}
    try:
        for part in snapshots.parts(version):
            try:
                numbers = matching(snapshots.user_ids(version, part), digests)
            except StoreAway:
                raise
            except SnapshotError as error:
                _warn(snapshots, version, error)
            else:
                if numbers:
                    held[part] = numbers
    except StoreAway:
        raise
    except SnapshotError as error:
        _warn(snapshots, version, error)
    return held


def _warn(snapshots: Snapshots, version: str, error: SnapshotError) -> None:
    log.warning(
        "%s; if it holds users who were forgotten, delete %s.",
        error, snapshots.storage.place(version),
    )  # fmt: skip


def _meant(snapshots: Snapshots, version: str, forgotten: Mapping[str, int]) -> set[str]:
    """Digests of the users whom a snapshot may not hold."""
    try:
        stamp = snapshots.manifest(version).stamp
    except StoreAway:
        raise
    except SnapshotError:
        stamp = 0  # whoever was forgotten at any time
    return {digest for digest, at in forgotten.items() if at > stamp or not stamp}


def _take_out(snapshots: Snapshots, version: str, held: Held, marks: Changing) -> None:
    """Take them out of what is needed, as a part of a change of the marks: so nothing is deleted
    that is about to go live."""
    needed = _may_be_needed(marks, version)
    if not needed or not all(_blank(snapshots, version, *of) for of in held.items()):
        marks.drop(version)


def _may_be_needed(marks: Changing, version: str) -> bool:
    """Whether a snapshot is or was live, or nobody knows what is live."""
    try:
        live = marks.live()
    except SnapshotError:
        return True
    return version == live or marks.promoted_at(version) is not None


def _blank(snapshots: Snapshots, version: str, part: str, numbers: list[int]) -> bool:
    """Zero the users' rows and put the empty string for their ids, each file replaced at once.

    Returns:
        False for a snapshot with a broken file; what the disk refuses does not say that it is
        broken.
    """
    storage, told = snapshots.storage, origin(version, part)
    ids = Ids(snapshots.user_ids(version, part))
    for stem in FILES:
        name = f"{version}/{stem}{part}.safetensors"
        try:
            file = storage.file(name)
        except FileNotFoundError:
            continue
        try:
            tensors = _without(file, stem, told, numbers, len(ids))
        except BROKEN:
            return False
        _replace(storage, name, partial(files.write_tensors, tensors=tensors, version=told))
    # The ids last: as long as they are there, it is seen that there is something to be done.
    ids.blank(numbers)
    write = partial(files.write_ids, column="user_id", ids=ids.values, version=told)
    _replace(storage, f"{version}/users{part}.parquet", write)
    return True


def _without(
    file: File, stem: str, version: str, numbers: list[int], n_users: int
) -> dict[str, Tensor]:
    """The tensors of a file, without what they tell of the users.

    All is checked before torch computes with it: torch's own errors do not say whether the file is
    broken or the machine lacks something.

    Raises:
        BROKEN: the file is broken.
    """
    tensors = files.read_tensors(file, version)
    if stem == "trained":
        return edges_of_users(file, tensors, n_users).without(numbers).tensors()
    for table in OF_USERS & tensors.keys():
        table_of_users(file, tensors, table, n_users)[numbers] = 0
    return tensors


def _replace(storage: Storage, name: str, write: Write) -> None:
    try:
        storage.write(name, write)
    except (OSError, SafetensorError, pa.ArrowException) as error:
        raise trouble(f"cannot write {storage.place(name)}", error) from error
