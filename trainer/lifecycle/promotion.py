"""Which snapshot is live is changed by one at a time: the trainer, or an operator beside it.

The folder of the snapshots is locked meanwhile, so no snapshot is pruned that is about to go live,
and no candidate takes the place of a model that it was not judged against. Where a volume knows no
locks, two changes within the same few milliseconds are not told apart.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.snapshots import Snapshots


class LiveChanged(SnapshotError):
    """Another model went live since the caller looked."""


@contextmanager
def locked(snapshots: Snapshots) -> Iterator[None]:
    """Nobody else changes what is live, or prunes, while inside.

    Raises:
        SnapshotError: the folder is missing or cannot be opened.
    """
    try:
        folder = os.open(snapshots.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SnapshotError(f"cannot open {snapshots.root}: {error.strerror}") from error
    try:
        with suppress(OSError):  # of a volume without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def named(snapshots: Snapshots) -> str | None:
    """The version that the live pointer names; None where there is none or it is damaged."""
    try:
        return snapshots.marks.live()
    except SnapshotError:
        return None


def put_live(snapshots: Snapshots, version: str, instead_of: str | None) -> None:
    """Put a candidate live in the place of the model that it was judged against.

    Raises:
        LiveChanged: the live pointer names another model by now, whoever put it there.
        SnapshotError: the pointer cannot be written.
    """
    with locked(snapshots):
        live = named(snapshots)
        if live != instead_of:
            raise LiveChanged(
                f"{live or 'no model'} was made live while this one was trained and judged against "
                f"{instead_of or 'popularity alone'}"
            )
        snapshots.promote(version)


def promote(snapshots: Snapshots, version: str) -> None:
    """Put a snapshot live that an operator has chosen, also one that the gate has rejected.

    Raises:
        SnapshotError: there is no such snapshot, it is damaged, or the pointer cannot be written.
    """
    with locked(snapshots):
        if version not in snapshots.versions():
            raise SnapshotError(
                f"there is no snapshot {version} in {snapshots.root}; `streamgcn models list` "
                "shows all"
            )
        snapshots.read(version)
        snapshots.promote(version)


def roll_back(snapshots: Snapshots) -> tuple[str, str]:
    """Take the last promotion back: the model before the live one goes live again.

    The model that was live is marked as withdrawn, so that to roll back once more goes further
    back, and no damaged model is replaced by it.

    Returns:
        The version that was live, and the one that is live now.

    Raises:
        SnapshotError: no sound snapshot was live before, or the mark or the pointer cannot be
            written.
    """
    with locked(snapshots):
        live = snapshots.marks.live()
        if live is None:
            raise SnapshotError(f"no model is live in {snapshots.root}")
        for version in before(snapshots, live):
            try:
                snapshots.read(version)
            except SnapshotError:
                continue  # it is damaged
            if (snapshots.root / live).is_dir():  # a model that is gone needs no mark
                snapshots.marks.withdraw(live)
            snapshots.marks.point_to(version)
            return live, version
        raise SnapshotError(
            f"no model was live before {live}; `streamgcn models promote` puts any other one live"
        )


def before(snapshots: Snapshots, live: str) -> list[str]:
    """Versions that were live before the live one and were not withdrawn, the last one first."""
    at = {
        version: promoted
        for version in snapshots.versions()
        if version != live
        and (promoted := snapshots.marks.promoted_at(version)) is not None
        and not snapshots.marks.is_withdrawn(version)
    }
    return sorted(at, key=lambda version: (at[version], version), reverse=True)
