"""A new snapshot is written when the object store takes it: the training may have taken hours."""

from __future__ import annotations

import threading

from process.outage import Outage
from process.retry import until_it_works
from trainer.lifecycle.manifest import Snapshot, StoreAway
from trainer.lifecycle.snapshots import Snapshots


def write_when_it_can_be(
    snapshots: Snapshots, snapshot: Snapshot, outage: Outage, stop: threading.Event
) -> None:
    """Write it, waiting while an object store does not answer.

    Raises:
        SnapshotError: a disk refuses.
        Stopped: told to stop before it was written.
    """

    def heals(error: BaseException) -> bool:
        return isinstance(error, StoreAway)

    until_it_works(lambda: snapshots.write(snapshot), heals, outage, stop, "MODEL_STORE")
