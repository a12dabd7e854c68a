"""Which snapshots are kept, and what a writer that was killed has left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.promotion import locked
from trainer.lifecycle.snapshots import Snapshots

NEWEST = 5  # snapshots that are kept, live or not
WERE_LIVE = 3  # that were live last and were not withdrawn, the live one among them
ABANDONED_AFTER = 3_600.0  # seconds without a change: another trainer may be at work on a draft


def prune(snapshots: Snapshots) -> None:
    """Delete all but the newest snapshots and those that were live last, and abandoned drafts."""
    with locked(snapshots):
        _delete_old(snapshots)
    for draft in snapshots.root.glob(".*.draft"):
        if time.time() - _changed(draft) > ABANDONED_AFTER:
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


def _delete_old(snapshots: Snapshots) -> None:
    versions = snapshots.versions()
    promoted = {
        version: at
        for version in versions
        if (at := snapshots.marks.promoted_at(version)) is not None
        and not snapshots.marks.is_withdrawn(version)
    }
    kept = set(versions[-NEWEST:])
    kept |= set(sorted(promoted, key=lambda version: promoted[version])[-WERE_LIVE:])
    try:
        kept.add(snapshots.marks.live() or "")
    except SnapshotError:
        return  # nobody knows what may go
    for version in set(versions) - kept:
        shutil.rmtree(snapshots.root / version, ignore_errors=True)


def _changed(draft: Path) -> float:
    """When a draft was changed last, epoch seconds."""
    try:
        return max(path.stat().st_mtime for path in (draft, *draft.glob("*")))
    except OSError:  # it is finished, or gone
        return time.time()
