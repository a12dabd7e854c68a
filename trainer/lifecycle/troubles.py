"""What is raised where the storage of the snapshots raises an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pyarrow as pa
from safetensors import SafetensorError

from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.storage import File, Storage, StoreTrouble

UNREADABLE = (OSError, SafetensorError, msgspec.MsgspecError, pa.ArrowException, ValueError)
UNWRITABLE = (OSError, SafetensorError, pa.ArrowException)


@contextmanager
def named(place: str) -> Iterator[None]:
    """Turn what reading raises into SnapshotError, with the place."""
    try:
        yield
    except SnapshotError:
        raise
    except UNREADABLE as error:
        raise trouble(f"cannot read {place}", error) from error


@contextmanager
def reading(storage: Storage, name: str) -> Iterator[File]:
    """A file of a snapshot; what reading it raises inside becomes SnapshotError, with the place."""
    with named(storage.place(name)):
        yield storage.file(name)


def trouble(what: str, error: Exception) -> SnapshotError:
    """What is raised where a storage raises an error."""
    kind = StoreAway if isinstance(error, StoreTrouble) else SnapshotError
    return kind(f"{what}: {error}")
