"""The trainer's process: follow the edge store, retrain when due, put the new snapshot live."""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import asdict

import torch
from rich.progress import Progress as Bar

from consumer.edge.retention import Retention
from consumer.edge.store import EdgeStore, Replaced, StoreError, Watermark
from process.health import Health
from process.log import Figures
from process.outage import Outage
from process.running import Running
from trainer.fit import NothingToLearn, Start, fit
from trainer.graph import InteractionGraph
from trainer.growth import grow
from trainer.lifecycle.gate import objection
from trainer.lifecycle.snapshots import Manifest, Snapshot, SnapshotError, Snapshots, new_version
from trainer.lifecycle.warm import aligned_start, chosen, goes_on, tensors
from trainer.settings import TrainerSettings
from trainer.train import Diverged, Progress, Stopped, device

log = logging.getLogger("trainer")

# RuntimeError is what torch raises of a lack of memory, of a GPU, of a matrix without eigenvalues.
FAULTS = (Diverged, NothingToLearn, SnapshotError, MemoryError, RuntimeError)
LOOK_EVERY = 1.0  # seconds between two looks at the edge store
SMALL = 100_000  # edges
LINE_EVERY = 10.0  # seconds between two log lines of a training


class Retrain:
    """The graph as far as it was read, and when it was trained last."""

    def __init__(
        self,
        settings: TrainerSettings,
        stop: threading.Event,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> None:
        """Raises DeviceMissing where the settings ask for a GPU that is not there."""
        log.info("Training will run on %s.", device(settings.device))
        self._settings = settings
        self._stop = stop
        self._figures = figures or Figures("trainer")
        self._health = health or Health()
        self._threads = torch.get_num_threads()
        self._snapshots = Snapshots(settings.model_store)
        self._store: EdgeStore | None = None
        self._graph = InteractionGraph(weighing=settings.weighing())
        self._watermark = Watermark()
        self._forgotten: dict[str, int] = {}  # to be taken out of the snapshots
        self._new_rows = 0
        self._trained_at = 0.0
        self._trained_edges = 0
        self._retention = Retention(settings.retention_days)
        self._outage = Outage(log, "The edge store cannot be read", "The edge store is back")

    def run(self) -> None:
        """Look, train, wait, until told to stop."""
        while not self._stop.is_set():
            with self._health.busy("reading the edge store"):
                self._read()
                self._expire()
            self._health.needs(store=self._outage.trouble)
            with self._health.busy("erasing forgotten users from the snapshots"):
                self._erase()
            if self._due():
                with self._health.busy("training"):
                    self._retrain()
            self._health.alive()
            self._stop.wait(LOOK_EVERY)
        log.info("Stopped.")

    def _read(self) -> None:
        """Grow the graph by the store's new rows."""
        try:
            self._store = self._store or EdgeStore(
                self._settings.edge_store, self._settings.kafka_topic
            )
            if self._store.changed(self._watermark):
                self._grow(self._store)
        except Replaced as error:
            log.warning("%s; reading it from its start.", error)
            self._graph = InteractionGraph(weighing=self._settings.weighing())
            self._watermark = Watermark()
            return
        except StoreError as error:
            self._outage.failed(error)
            return
        self._outage.worked()

    def _expire(self) -> None:
        """Take out edges that are too old; each counts as news for the next training."""
        oldest = self._retention.due()
        if oldest is None:
            return
        before = len(self._graph)
        self._graph.expire(oldest)
        if gone := before - len(self._graph):
            self._new_rows += gone
            days = self._settings.retention_days
            log.info("%d edges older than %g days have left the graph.", gone, days)

    def _grow(self, store: EdgeStore) -> None:
        for step in grow(self._graph, store, self._watermark):
            for user, stamp in step.notices.items():
                self._forgotten[user] = max(stamp, self._forgotten.get(user, 0))
            self._new_rows += step.new
            self._watermark = step.watermark
            self._health.alive()

    def _erase(self) -> None:
        """Take users out of the snapshots who were forgotten since they were written."""
        if not self._forgotten:
            return
        try:
            touched = self._snapshots.erase(self._forgotten)
        except SnapshotError as error:
            log.warning("%s; trying again.", error)
            return
        self._forgotten.clear()
        if touched:
            log.info("Took forgotten users out of snapshots %s.", ", ".join(touched))

    def _due(self) -> bool:
        """The first time at min_edges; then after retrain_edges, retrain_seconds, or a doubling.

        The doubling, so that the model does not stay that of a bulk load's first thousand events.
        """
        if len(self._graph) < self._settings.min_edges or not self._new_rows:
            return False
        waited = time.monotonic() - self._trained_at
        return (
            not self._trained_at
            or self._new_rows >= min(self._settings.retrain_edges, self._trained_edges)
            or waited >= self._settings.retrain_seconds
        )

    def _retrain(self) -> None:
        self._trained_at = time.monotonic()
        self._trained_edges = len(self._graph)
        self._new_rows = 0
        try:
            snapshot = self._snapshot()
            self._snapshots.write(snapshot)
            manifest = snapshot.manifest
            if not manifest.rejected:
                self._snapshots.promote(manifest.version)
            self._snapshots.prune()
        except FAULTS as error:
            log.error("This training is lost, the live model stays: %s.", error)
            return
        except Stopped:
            log.info("Told to stop in the middle of a training; the live model stays.")
            return
        if manifest.rejected:
            log.warning("Snapshot %s is rejected: %s.", manifest.version, manifest.rejected)
        else:
            log.info("Snapshot %s is live.", manifest.version)
        self._figures.report(
            "trained",
            users=manifest.users,
            items=manifest.items,
            edges=manifest.edges,
            **{name: round(value, 4) for name, value in manifest.metrics.items()},
            **{f"{name}_s": round(value, 1) for name, value in manifest.seconds.items()},
        )

    def _snapshot(self) -> Snapshot:
        graph, settings = self._graph, self._settings.hyperparameters()
        # A small graph is as quick on one core, and leaves the others to those that share them.
        torch.set_num_threads(1 if len(graph) < SMALL else self._threads)
        live = self._live()
        start = self._start(live) if live and goes_on(live, graph, settings) else None
        chosen_at = len(graph)
        if live and start:
            settings = settings.filled(chosen(live.manifest))
            chosen_at = live.manifest.chosen_at
        log.info(
            "Training %s on %d edges of %d users and %d items, %s.",
            settings.model, len(graph), graph.n_users, graph.n_items,
            f"going on from {live.manifest.version}" if live and start else "from scratch",
        )  # fmt: skip
        fitted = fit(graph, settings, self._progress(), start)
        manifest = Manifest(
            version=new_version(),
            model=settings.model,
            layers=fitted.embeddings.layers,
            cosine=fitted.embeddings.cosine,
            trained_at=int(time.time() * 1000),
            users=graph.n_users,
            items=graph.n_items,
            edges=len(graph),
            store_version=self._store.version if self._store else 0,
            offsets=dict(self._watermark.offsets),
            log=self._watermark.log,
            stamp=self._watermark.stamp or 0,
            newest=int(graph.timestamps.max(initial=0)),
            chosen_at=chosen_at,
            settings=asdict(fitted.settings),
            metrics=fitted.metrics,
            seconds=fitted.seconds,
            rejected=objection(fitted, graph, live),
        )
        return Snapshot(
            manifest,
            fitted.embeddings,
            graph.user_ids.values,
            graph.item_ids.values,
            tensors(fitted.start),
        )

    def _live(self) -> Snapshot | None:
        version = self._snapshots.live()
        try:
            return self._snapshots.read(version) if version else None
        except SnapshotError as error:
            log.warning("%s; training from scratch.", error)
            return None

    def _start(self, live: Snapshot) -> Start | None:
        try:
            kept = self._snapshots.start(live.manifest.version)
        except SnapshotError as error:
            log.warning("%s; training from scratch.", error)
            return None
        return aligned_start(live, kept, self._graph)

    def _progress(self) -> Progress:
        """A bar on a terminal, else a line every few seconds; stops the training when told to."""
        bar = Bar(transient=True) if sys.stderr.isatty() else None
        task = bar.add_task("training") if bar else None
        started = line = time.monotonic()
        at = ""

        def progress(stage: str, done: int, steps: int, loss: float | None) -> None:
            nonlocal line, started, at
            now = time.monotonic()
            if stage != at:
                started, at = now, stage
            if bar and task is not None:
                bar.start()
                bar.update(task, total=steps, completed=done, description=stage)
            if bar and (done == steps or self._stop.is_set()):
                bar.stop()
            if self._stop.is_set():
                raise Stopped
            if now - line >= LINE_EVERY:
                line = now
                self._figures.report(
                    "training",
                    stage=stage.replace(" ", "_"),
                    step=done,
                    steps=steps,
                    loss="-" if loss is None else round(loss, 4),
                    remaining_s=max(0, round((now - started) / done * (steps - done))),
                )

        return progress


def run(settings: TrainerSettings, process: Running) -> None:
    """The process `streamgcn trainer`."""
    Retrain(settings, process.stop, process.figures, process.health).run()
