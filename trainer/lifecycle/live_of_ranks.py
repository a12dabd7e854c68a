"""The live model on all ranks: the first one says which it is, and each reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Snapshot, SnapshotError, StoreAway
from trainer.lifecycle.snapshots import Snapshots
from trainer.ranks import Ranks

T = TypeVar("T")


def live_snapshot(live: LiveModel, snapshots: Snapshots, ranks: Ranks) -> Snapshot | None:
    """The snapshot to use, None where there is none.

    Raises:
        StoreAway: an object store did not answer.
        SnapshotError: a rank cannot read what the first rank has read.
    """
    if not ranks.several:
        return live.read()
    found = read_by_all(lambda: live.read() if ranks.first else None, ranks)
    version = ranks.said(found.manifest.version.encode() if found else b"").decode()
    if not version:
        return None
    return read_by_all(lambda: found or snapshots.read(version), ranks)


def read_by_all(read: Callable[[], T], ranks: Ranks) -> T:
    """What each rank reads of a snapshot; where one fails, all do.

    Raises:
        SnapshotError, StoreAway: `read` raises it on a rank.
    """
    if not ranks.several:
        return read()
    error: SnapshotError | None = None
    try:
        made = read()
    except SnapshotError as raised:
        error = raised
    failed = ranks.any(error is not None)
    away = ranks.any(isinstance(error, StoreAway))
    if not failed:
        return made
    if away and not isinstance(error, StoreAway):
        raise StoreAway("another process of this training cannot read MODEL_STORE") from error
    raise error or SnapshotError("another process of this training cannot read the live model")
