"""The model to use: the live snapshot, or the one before it where that is damaged."""

from __future__ import annotations

import logging

from process.outage import Outage
from trainer.lifecycle.manifest import Snapshot, SnapshotError
from trainer.lifecycle.snapshots import Snapshots

State = tuple[tuple[str, int, int], ...]  # name, size and time of change of each file


class LiveModel:
    """Passes over a damaged snapshot with one line of the log, and reads it again if it changes."""

    def __init__(self, snapshots: Snapshots, log: logging.Logger) -> None:
        self._snapshots = snapshots
        self._log = log
        self._damaged: dict[str, State] = {}
        self._last: str | None = None  # that the pointer named
        place = f"MODEL_STORE {snapshots.root}"
        self._pointer = Outage(
            log, f"{place} does not say which model is live", f"{place} says which model is live"
        )

    def version(self) -> str | None:
        """The version to use, None where there is none. Cheap: reads the live pointer alone."""
        try:
            live = self._snapshots.marks.live()
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

    def read(self) -> Snapshot | None:
        """The snapshot to use, None where there is none."""
        while version := self.version():
            try:
                return self._snapshots.read(version)
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
        versions = self._snapshots.versions()
        if live:
            older = [version for version in versions if version < live]
            newer = [version for version in versions if version > live]
            order = [*older[::-1], *newer]
        else:
            at = {version: self._snapshots.marks.promoted_at(version) or 0 for version in versions}
            order = sorted(versions, key=lambda version: (at[version], version), reverse=True)
        passed = (version for version in order if self._has_passed(version))
        return [version for version in passed if not self._snapshots.marks.is_withdrawn(version)]

    def _has_passed(self, version: str) -> bool:
        try:
            return not self._snapshots.manifest(version).rejected
        except SnapshotError:
            return False

    def _is_damaged(self, version: str) -> bool:
        return version in self._damaged and self._damaged[version] == self._state(version)

    def _state(self, version: str) -> State:
        try:
            files = sorted((self._snapshots.root / version).iterdir())
            found = ((file.name, file.stat()) for file in files)
            return tuple((name, of.st_size, of.st_mtime_ns) for name, of in found)
        except OSError:
            return ()
