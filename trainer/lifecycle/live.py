"""The model to use: the live snapshot, or the one before it where that is damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable

from process.outage import Outage
from trainer.lifecycle.manifest import Snapshot, SnapshotError, StoreAway
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import State

Files = tuple[tuple[str, State], ...]  # name and state of each file of a snapshot


class LiveModel:
    """Passes over a damaged snapshot with one line of the log, and reads it again if it changes.

    snapshots: among which it is.
    """

    def __init__(self, snapshots: Snapshots, log: logging.Logger) -> None:
        self.snapshots = snapshots
        self._log = log
        self._damaged: dict[str, Files] = {}
        self._last: str | None = None  # that the pointer named
        place = f"MODEL_STORE {snapshots.storage}"
        self._pointer = Outage(
            log, f"{place} does not say which model is live", f"{place} says which model is live"
        )
        self._reading = Outage(log, f"{place} cannot be read", f"{place} can be read again")

    @property
    def unknown(self) -> bool:
        """Whether it could not be seen, at the last look, which one is live."""
        return self._pointer.lasts

    def version(self) -> str | None:
        """The version to use, None where there is none. Cheap: reads the live pointer alone."""
        try:
            live = self.snapshots.marks.live()
        except SnapshotError as error:
            self._pointer.failed(error)
            live = self._last
        else:
            self._pointer.worked()
            self._last = live
        if live and not self._is_damaged(live):
            return live
        if not live and not self._pointer.lasts:
            return None
        others = self._before(live)
        return next((version for version in others if not self._is_damaged(version)), None)

    def read(self, read: Callable[[str], Snapshot] | None = None) -> Snapshot | None:
        """The snapshot to use, None where there is none.

        Args:
            read: reads a version as `Snapshots.read` does, if not the whole of it is needed.

        Raises:
            StoreAway: an object store did not answer, which is said.
        """
        read = read or self.snapshots.read
        while version := self.version():
            try:
                found = read(version)
                self._reading.worked()
                return found
            except StoreAway as error:
                self._reading.failed(error)
                raise
            except SnapshotError as error:
                self._damaged[version] = self._state(version)
                instead = self.version()
                self._log.warning(
                    "Snapshot %s cannot be used: %s; %s.",
                    version, error, f"{instead} is used" if instead else "there is none before it",
                )  # fmt: skip
        return None

    def _before(self, live: str | None) -> list[str]:
        """What may take the place of the live one, best first: older ones, then newer ones; where
        none is known, as they went live. What the gate or an operator has rejected may not.
        """
        versions = self.snapshots.versions()
        try:
            marks = self.snapshots.marks.now()
        except SnapshotError:
            return []
        if live:
            older = [version for version in versions if version < live]
            newer = [version for version in versions if version > live]
            order = [*older[::-1], *newer]
        else:
            at = {version: marks.promoted_at(version) or 0 for version in versions}
            order = sorted(versions, key=lambda version: (at[version], version), reverse=True)
        passed = (version for version in order if self._has_passed(version))
        return [version for version in passed if not marks.is_withdrawn(version)]

    def _has_passed(self, version: str) -> bool:
        try:
            return not self.snapshots.manifest(version).rejected
        except SnapshotError:
            return False

    def _is_damaged(self, version: str) -> bool:
        return version in self._damaged and self._damaged[version] == self._state(version)

    def _state(self, version: str) -> Files:
        try:
            return tuple(sorted(self.snapshots.storage.states(version).items()))
        except OSError:
            return ()
