"""What the ranks of a trainer agree on, so that all of them do the same at the same time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from process.errors import StreamGCNError, in_one_line
from process.health import Health
from process.outage import Outage
from trainer.fit.check import NothingToLearn
from trainer.graph.stored import StoredGraph
from trainer.lifecycle.by_first import RankFailed
from trainer.lifecycle.lease import LeaseLost
from trainer.lifecycle.manifest import SnapshotError
from trainer.model.gradient_training import Diverged
from trainer.model.progress import TrainingStopped
from trainer.ranks import Ranks

LOOKS = 3  # that a rank takes to read as much as the first one, which takes none meanwhile
# What a training raises on all ranks, where it does so on one.
ON_ALL = (NothingToLearn, Diverged, SnapshotError, RankFailed)


class RankEnds(StreamGCNError):
    """Something went wrong on one of several ranks, and the others do not know what."""


class Together:
    """The ranks of a trainer. All methods but `end` are called by all ranks at once."""

    def __init__(self, ranks: Ranks, log: logging.Logger) -> None:
        self._ranks = ranks
        self._behind = Outage(
            log,
            "Another process of this training reads less of the edge store",
            "All processes of this training read the edge store",
        )

    def waiting(self, health: Health) -> AbstractContextManager[None]:
        """Inside, this rank may wait for one that takes minutes, to read the edge store say."""
        if not self._ranks.several:
            return nullcontext()
        return health.busy("waiting for the other processes of this training")

    def now(self) -> float:
        """The first rank's clock, in monotonic seconds."""
        return self._ranks.largest(time.monotonic() if self._ranks.first else 0.0)

    def have_read(self, edges: StoredGraph, read: Callable[[], None]) -> bool:
        """Whether all ranks have read as much of the edge store as the first one; then items have
        the same numbers on all of them.

        Args:
            read: reads what is new.
        """
        for _ in range(LOOKS):
            behind = edges.is_behind()
            if not self._ranks.any(behind):
                self._behind.worked()
                edges.agree()
                return True
            if behind:
                read()
        self._behind.failed("it is waited for")
        return False

    def look(self, stop: bool, lost: bool) -> None:
        """See that a training is still wanted.

        Args:
            stop: whether this rank was told to stop; lost: whether the first rank has lost the
                lease, of which the others know nothing.

        Raises:
            TrainingStopped: a rank was told to stop.
            LeaseLost: the first one has lost it.
        """
        why = self._ranks.most(2 if stop else int(lost and self._ranks.first))
        if why == 2:
            raise TrainingStopped
        if why == 1:
            raise LeaseLost("this trainer no longer holds MODEL_STORE")

    def end(self, error: Exception) -> None:
        """Where several ranks train, and the others do not know of an error: end.

        Raises:
            RankEnds: they do not.
        """
        if self._ranks.several and not isinstance(error, ON_ALL):
            raise RankEnds(
                f"process {self._ranks.rank} of this training ends, and all others with it: "
                f"{in_one_line(error)}; start the trainer again"
            ) from error
