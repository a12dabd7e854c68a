"""Which snapshot is live is changed by one at a time: the trainer, or an operator beside it.

Nobody else changes the marks meanwhile, so no snapshot is pruned that is about to go live, and no
candidate takes the place of a model that it was not judged against. Where the volume of a folder
knows no locks, two changes within the same few milliseconds are not told apart.
"""

from __future__ import annotations

from functools import partial

from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.marks import Changing, Marks, Seen
from trainer.lifecycle.parts import NOBODY
from trainer.lifecycle.snapshots import Snapshots


class LiveChanged(SnapshotError):
    """Another model went live since the caller looked."""


def named(snapshots: Snapshots) -> str | None:
    """The version that the live pointer names; None where there is none or it is damaged.

    Raises:
        StoreAway: nobody knows.
    """
    return named_in(snapshots.marks)


def put_live(snapshots: Snapshots, version: str, instead_of: str | None) -> None:
    """Put a candidate live in the place of the model that it was judged against.

    Raises:
        LiveChanged: the live pointer names another model by now, whoever put it there.
        SnapshotError: the pointer cannot be written.
    """

    def act(marks: Changing) -> None:
        live = named_in(marks)
        if live != instead_of:
            raise LiveChanged(
                f"{live or 'no model'} was made live while this one was trained and judged against "
                f"{instead_of or 'popularity alone'}"
            )
        snapshots.promote_in(marks, version)

    snapshots.marks.change(act)


def promote(snapshots: Snapshots, version: str) -> None:
    """Put a snapshot live that an operator has chosen, also one that the gate has rejected.

    Raises:
        SnapshotError: there is no such snapshot, it is damaged, or the pointer cannot be written.
    """

    def act(marks: Changing) -> None:
        if version not in snapshots.every_version():
            raise SnapshotError(
                f"there is no snapshot {version} in {snapshots.storage}; `streamgcn models list` "
                "shows all"
            )
        snapshots.read(version, NOBODY)
        marks.promote(version)

    snapshots.marks.change(act)


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
    return snapshots.marks.change(partial(_roll_back, snapshots))


def _roll_back(snapshots: Snapshots, marks: Changing) -> tuple[str, str]:
    live = marks.live()
    if live is None:
        raise SnapshotError(f"no model is live in {snapshots.storage}")
    for version in before(snapshots, marks, live):
        try:
            snapshots.read(version, NOBODY)
        except StoreAway:
            raise
        except SnapshotError:
            continue  # it is damaged
        if snapshots.storage.states(live):  # a model that is gone needs no mark
            marks.withdraw(live)
        marks.point_to(version)
        return live, version
    raise SnapshotError(
        f"no model was live before {live}; `streamgcn models promote` puts any other one live"
    )


def before(snapshots: Snapshots, marks: Seen, live: str) -> list[str]:
    """Versions that were live before the live one and were not withdrawn, the last one first."""
    at = {
        version: promoted
        for version in snapshots.versions()
        if version != live
        and (promoted := marks.promoted_at(version)) is not None
        and not marks.is_withdrawn(version)
    }
    return sorted(at, key=lambda version: (at[version], version), reverse=True)


def named_in(marks: Marks | Seen) -> str | None:
    """The same of marks that were read."""
    try:
        return marks.live()
    except StoreAway:
        raise
    except SnapshotError:
        return None
