"""The consumer and the trainer of a replay: messages -> edge store -> graph -> snapshot."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from consumer.edge.store import EdgeStore, Watermark
from consumer.ingest.batch import Batch
from consumer.kafka.client import Message
from streamgcn.replay.stream import TOPIC
from trainer.graph.growth import grow
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.pruning import prune
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import Progress

log = logging.getLogger("replay")


class Learner:
    """Stores what is taken, and trains on all of it when it is told to."""

    def __init__(self, folder: Path, settings: Hyperparameters, weighing: Weighing) -> None:
        """`folder`: an empty one, for the edge store and the snapshots."""
        self.store = EdgeStore.begin(str(folder / "edges"), TOPIC)
        self.log = self.store.newest()
        self._batch = Batch()
        self._stored: int | None = None  # offset up to which events are in the store
        self._settings = settings
        self._graph = InteractionGraph(weighing=weighing)
        self._watermark = Watermark()
        self._snapshots = Snapshots(str(folder / "models"))
        self._live = LiveModel(self._snapshots, log)

    def take(self, messages: Sequence[Message]) -> None:
        """Keep messages for the next commit."""
        self._batch.take(messages, self._stored, time.time_ns() // 1000)

    def commit(self) -> None:
        """Write what was taken to the edge store, and let the graph grow by it."""
        self._batch.write(self.store, self.log)
        self._stored = max(self._batch.after.values(), default=self._stored)
        self._batch = Batch()
        for step in grow(self._graph, self.store, self._watermark):
            self._watermark = step.watermark

    def train(self, progress: Progress) -> tuple[Manifest, Snapshot | None]:
        """Train on the graph.

        Returns:
            What the new snapshot says of itself, and the snapshot that is live then: the new one,
            or the one before if the gate rejects the new one.

        Raises:
            NothingToLearn, NothingJoined, Diverged, DeviceMissing: as `candidate`.
        """
        live = self._live.read()
        made = candidate(
            self._graph, self._settings, self._snapshots, live, progress, self._watermark
        )
        self._snapshots.write(made)
        if not made.manifest.rejected:
            self._snapshots.promote(made.manifest.version)
        prune(self._snapshots)
        return made.manifest, self._live.read()
