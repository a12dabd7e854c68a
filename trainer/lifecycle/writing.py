"""A new snapshot is written when the store takes it: the training may have taken hours."""

from __future__ import annotations

import threading
from collections.abc import Callable

from process.outage import Outage
from process.shutdown import Stopped
from trainer.lifecycle.by_first import RAISED_BY_ALL, by_each, by_first
from trainer.lifecycle.manifest import Manifest, Snapshot, StoreAway
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.troubles import trouble
from trainer.ranks import Ranks


class Writing:
    """Writes snapshots, each rank the parts of its own users, at one place that all ranks reach."""

    def __init__(
        self, snapshots: Snapshots, ranks: Ranks, outage: Outage, stop: threading.Event
    ) -> None:
        """Nothing is written yet."""
        self._snapshots, self._ranks = snapshots, ranks
        self._outage, self._stop = outage, stop

    def write(self, snapshot: Snapshot, confirm: Callable[[], None]) -> None:
        """Write one, waiting while an object store does not answer. All ranks call it at once.

        Args:
            confirm: sees on the first rank that nobody else writes here.

        Raises:
            SnapshotError, RankFailed: a disk refuses; what was begun is deleted.
            LeaseLost: `confirm` raises it.
            Stopped: told to stop before it was written.
        """

        added = False

        def add() -> None:
            nonlocal added
            if self._stop.is_set():
                raise Stopped("writing a snapshot")
            if self._ranks.first:
                self._see(confirm)
            if not added:  # else it waits for another rank
                self._snapshots.add(snapshot, self._ranks)
            added = True

        def finish() -> Manifest:
            if self._outage.lasts and self._stop.is_set():
                raise Stopped("writing a snapshot")
            self._see(confirm)
            self._snapshots.finish(snapshot)
            return snapshot.manifest

        try:
            self._when_it_can_be(lambda: by_each(add, self._ranks))
            self._when_it_can_be(lambda: by_first(finish, self._ranks))
        except RAISED_BY_ALL:
            self._snapshots.storage.abandon(snapshot.manifest.version)
            raise
        except BaseException:
            if self._ranks.first:  # what another rank is still writing goes after an hour
                self._snapshots.storage.abandon(snapshot.manifest.version)
            raise

    @staticmethod
    def _see(confirm: Callable[[], None]) -> None:
        try:
            confirm()
        except OSError as error:
            raise trouble("cannot see who may write to MODEL_STORE", error) from error

    def _when_it_can_be(self, act: Callable[[], object]) -> None:
        """All ranks act again where one could not; how long each waits before that is its own."""
        while True:
            try:
                act()
            except StoreAway as error:
                self._stop.wait(self._outage.failed(error))
            else:
                self._outage.worked()
                return
