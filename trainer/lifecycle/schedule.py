"""When to train: after enough has changed, not too often, and again after a failure.

Of several ranks each has the edges and events of its own users. They sum them up, and are given the
same times, so all of them decide the same.
"""

from __future__ import annotations

import numpy as np

from trainer.graph import whole
from trainer.graph.arrays import Int64s
from trainer.graph.interactions import InteractionGraph
from trainer.settings import TrainerSettings

FIRST_RETRY, LAST_RETRY = 60.0, 3_600.0  # seconds after a failure, doubling
REST = 60.0  # seconds between two trainings, at least, and as long as the last one took;
GROWN_REST = 10.0  # but where the graph has doubled, which happens only so often


class Schedule:
    """Knows the edges of the last training that succeeded. All times are monotonic seconds."""

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._trained: Int64s | None = None  # the edges' keys, of this rank
        self._edges = 0  # of all ranks, in that training
        self._began = self._ended = 0.0
        self._changed = 0  # edges of all ranks, when they were counted last,
        self._events = 0  # and events of this rank since
        self._any = False  # event since the last training
        self._retry_at = self._retry_after = 0.0
        self._lost = False

    def note(self, events: int) -> None:
        """So many events were read."""
        self._events += events
        self._any = self._any or events > 0

    def lost(self) -> None:
        """There is no model any more: train as soon as may be."""
        self._lost = True

    def due(self, graph: InteractionGraph, now: float) -> bool:
        """Whether to train now.

        The first time at min_edges edges; then when as many edges were added or removed as the
        setting retrain_edges says, or as there were at the last training, or when retrain_seconds
        have passed and there was any event. A repeated event changes no edge. After a failure: when
        it is to be tried again.
        """
        ranks = graph.ranks
        edges, events = whole.edges(graph), ranks.total(self._events)
        any_, lost = ranks.any(self._any), ranks.any(self._lost)
        if edges < self._settings.min_edges or not edges:
            return False
        if self._retry_after:
            return now >= self._retry_at
        if self._trained is None:
            return True
        took, rested = self._ended - self._began, now - self._ended
        grown = edges >= 2 * self._edges
        if rested < max(GROWN_REST if grown else REST, took):
            return False
        if grown or lost:
            return True
        if any_ and now - self._began >= self._settings.retrain_seconds:
            return True
        return self._has_changed(graph, self._trained, events)

    def succeeded(self, graph: InteractionGraph, began: float, now: float) -> None:
        """A training of this graph is done, whether or not its model went live."""
        self._trained, self._edges = graph.keys, whole.edges(graph)
        self._began, self._ended = began, now
        self._changed = self._events = 0
        self._any = self._lost = False
        self._retry_after = 0.0

    def failed(self, now: float) -> float:
        """A training was lost. Returns the seconds until it is tried again."""
        self._retry_after = min(max(FIRST_RETRY, 2 * self._retry_after), LAST_RETRY)
        self._retry_at = now + self._retry_after
        return self._retry_after

    def wait(self, now: float) -> float:
        """There was nothing to learn yet. Returns the seconds until it is tried again."""
        self._retry_after = FIRST_RETRY
        self._retry_at = now + FIRST_RETRY
        return FIRST_RETRY

    def _has_changed(self, graph: InteractionGraph, trained: Int64s, events: int) -> bool:
        enough = min(self._settings.retrain_edges, max(1, self._edges))
        if self._changed + events < enough:
            return False  # an event changes one edge at most, so there is nothing to count
        changed = np.setxor1d(trained, graph.keys, assume_unique=True)
        self._changed = graph.ranks.total(len(changed))
        self._events = 0
        return self._changed >= enough
