"""Which snapshots are kept, and what a writer that was killed has left."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.marks import Changing
from trainer.lifecycle.snapshots import Snapshots

NEWEST = 5  # snapshots that are kept, live or not
WERE_LIVE = 3  # that were live last and were not withdrawn, the live one among them
ABANDONED_AFTER = 3_600.0  # seconds without a change: another trainer may be at work on a draft


def prune(snapshots: Snapshots) -> None:
    """Delete all but the newest snapshots and those that were live last, and abandoned drafts.

    Raises:
        SnapshotError, OSError: the storage is away or refuses.
    """
    snapshots.marks.change(partial(_drop_old, snapshots))
    snapshots.storage.tidy(ABANDONED_AFTER)


def _drop_old(snapshots: Snapshots, marks: Changing) -> None:
    versions = snapshots.versions()
    promoted = {
        version: at
        for version in versions
        if (at := marks.promoted_at(version)) is not None and not marks.is_withdrawn(version)
    }
    kept = set(versions[-NEWEST:])
    kept |= set(sorted(promoted, key=lambda version: promoted[version])[-WERE_LIVE:])
    try:
        kept.add(marks.live() or "")
    except SnapshotError:
        return  # nobody knows what may go
    for version in set(versions) - kept:
        with suppress(OSError):  # the next training tries again
            marks.drop(version)
