"""The live model on all ranks: the first one says which it is, and each reads its users' part."""

from __future__ import annotations

from trainer.lifecycle.by_first import by_each
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Snapshot, SnapshotError, StoreAway
from trainer.lifecycle.parts import Share
from trainer.lifecycle.snapshots import Snapshots
from trainer.ranks import Ranks


def live_snapshot(live: LiveModel, snapshots: Snapshots, ranks: Ranks) -> Snapshot | None:
    """The snapshot to use, with the users of this rank; None where there is none.

    What one rank cannot read is damaged for all: the first one passes over it.

    Raises:
        StoreAway: an object store did not answer.
    """

    def read(version: str) -> Snapshot:
        return by_each(lambda: snapshots.read(version, Share(ranks)), ranks)

    def say_and_read(version: str) -> Snapshot:
        ranks.said(version.encode())
        return read(version)

    if ranks.first:
        found = live.read(say_and_read)
        if found is None:
            ranks.said(b"")
        return found
    while version := ranks.said(b"").decode():
        try:
            return read(version)
        except StoreAway:
            raise
        except SnapshotError:
            continue
    return None
