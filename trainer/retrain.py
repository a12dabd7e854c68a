"""The trainer's process: follow the edge store, retrain when due, put the new snapshot live."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import torch

from process.errors import in_one_line
from process.health import Health
from process.log import Figures
from process.outage import Outage
from process.running import Running
from process.settings import SettingsError
from process.shutdown import Stopped
from trainer.device import device
from trainer.fit.check import NothingJoined
from trainer.graph.stored import StoredGraph
from trainer.lifecycle import metrics
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.lease import Lease, LeaseLost
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError
from trainer.lifecycle.progress import shown
from trainer.lifecycle.promotion import LiveChanged, named, put_live
from trainer.lifecycle.pruning import prune
from trainer.lifecycle.running_training import RunningTraining
from trainer.lifecycle.schedule import Schedule
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.writing import write_when_it_can_be
from trainer.memory import give_back
from trainer.model import parallel
from trainer.model.progress import TrainingStopped
from trainer.settings import TrainerSettings

log = logging.getLogger("trainer")

LOOK_EVERY = 1.0  # seconds between two looks at the edge store
SMALL = 100_000  # edges


class Retrain:
    """Reads, trains when due, and puts the new model live."""

    def __init__(
        self,
        settings: TrainerSettings,
        stop: threading.Event,
        figures: Figures | None = None,
        health: Health | None = None,
    ) -> None:
        """Raises DeviceMissing where the settings ask for a GPU that is not there, SettingsError
        where MODEL_STORE or STREAMGCN_MODEL_FILE is refused."""
        log.info("Training will run on %s.", device(settings.device))
        self._settings = settings
        self._hyperparameters = settings.hyperparameters()
        self._stop = stop
        self._figures = figures or Figures("trainer")
        self._health = health or Health()
        self._snapshots = Snapshots(settings.model_store)
        with suppress(SnapshotError):  # an object store that is away is waited for
            self._snapshots.check()
        self._lease = Lease(self._snapshots.storage)
        self._current = RunningTraining(self._snapshots.storage)
        self._live_model = LiveModel(self._snapshots, log)
        self._threads = torch.get_num_threads()
        self._schedule = Schedule(settings)
        self._edges = StoredGraph(
            settings.edge_store, settings.kafka_topic, settings.weighing(), settings.retention_days
        )
        place = f"MODEL_STORE {settings.model_store}"
        self._models_away = Outage(log, f"{place} cannot be used", f"{place} can be used again")
        self._not_erased = Outage(
            log,
            "Forgotten users cannot be removed from a snapshot",
            "Forgotten users were removed from the snapshots",
        )
        self._unforeseen = Outage(
            log, "An unexpected error in the trainer", "The trainer works again"
        )
        self._had_model = False
        self._quick = True  # until a first model is there
        self._said_nothing_joined = False  # in the log, since the last model

    def run(self) -> None:
        """Look, train, wait, until told to stop. Nothing that goes wrong in between ends it."""
        while not self._stop.is_set():
            wait = LOOK_EVERY
            try:
                self._turn()
                self._unforeseen.worked()
            except SettingsError:
                raise  # of the edge store, at first; waiting does not mend it
            except Exception as error:
                wait = max(wait, self._unforeseen.failed(in_one_line(error)))
            self._health.needs(
                store=self._edges.trouble,
                models=""
                if self._lease.held
                else "another trainer holds MODEL_STORE, or it is away",
            )
            self._health.alive()
            self._stop.wait(wait)
        self._lease.release()
        log.info("Stopped.")

    def _turn(self) -> None:
        with self._health.busy("reading the edge store"):
            self._read()
        if not self._may_write():
            return
        with self._health.busy("erasing forgotten users from the snapshots"):
            self._erase()
        if self._schedule.due(self._edges.graph, time.monotonic()):
            with self._health.busy("training"):
                self._retrain()
                give_back()

    def _read(self) -> None:
        """Grow the graph by the new rows of the edge store; old edges leave it."""
        for events in self._edges.read():
            self._schedule.note(events)
            self._health.alive()
        if gone := self._edges.expire():
            self._schedule.note(gone)  # news for the next training
            days = self._settings.retention_days
            log.info("%d edges older than %g days were removed from the graph.", gone, days)

    def _may_write(self) -> bool:
        """Whether this trainer holds the lease, and the folder of the models is there."""
        try:
            held = self._lease.take()
            if held and self._live_model.version():
                self._had_model = True
            elif held and self._had_model:
                log.warning(
                    "There is no live model in %s any more; training a new one.",
                    self._snapshots.storage,
                )
                self._had_model = False
                self._schedule.lost()
        except OSError as error:
            self._models_away.failed(error)
            return False
        self._models_away.worked()
        return held

    def _erase(self) -> None:
        """Take users out of the snapshots who were forgotten since they were written."""
        if not self._edges.forgotten:
            return
        try:
            touched = erase(self._snapshots, self._edges.forgotten)
        except SnapshotError as error:
            self._not_erased.failed(error)
            return
        self._not_erased.worked()
        self._edges.forgotten.clear()
        if touched:
            log.info("Forgotten users were removed from snapshots %s.", ", ".join(touched))

    def _retrain(self) -> None:
        began = time.monotonic()
        try:
            with self._current.of(len(self._edges.graph)):
                manifest = self._train_and_promote()
        except (TrainingStopped, Stopped):
            log.info("The training was stopped, as the process ends; the live model stays in use.")
            return
        except LeaseLost as error:
            log.warning("The training was stopped and its model dropped: %s.", error)
            return
        except NothingJoined as error:  # the events to come will mend it
            seconds = self._schedule.wait(time.monotonic())
            if not self._said_nothing_joined:
                log.warning("No model is made: %s. It is tried every %.0f s.", error, seconds)
            self._said_nothing_joined = True
            return
        except Exception as error:  # whatever it is, the live model stays and the process goes on
            self._figures.metrics.count("trainings", metrics.FAILED)
            seconds = self._schedule.failed(time.monotonic())
            log.error(
                "Training failed (%s); the live model stays in use. It is tried again in %.0f s.",
                in_one_line(error), seconds,
            )  # fmt: skip
            return
        self._quick = self._said_nothing_joined = False
        if manifest.chosen_at:  # else the one with chosen numbers follows at once
            self._schedule.succeeded(self._edges.graph, began, time.monotonic())
        if manifest.rejected:
            log.warning("Model %s is rejected: %s.", manifest.version, manifest.rejected)
        else:
            log.info("Model %s is live; serving loads it next.", manifest.version)
        metrics.report(self._figures, manifest)

    def _train_and_promote(self) -> Manifest:
        """Train, write the snapshot, and put it live unless the gate or an operator is against."""
        before = named(self._snapshots)
        snapshot = self._train_candidate()
        manifest = snapshot.manifest
        self._lease.confirm()
        write_when_it_can_be(self._snapshots, snapshot, self._models_away, self._stop)
        if not manifest.rejected:
            self._lease.confirm()
            try:
                put_live(self._snapshots, manifest.version, before)
            except LiveChanged as error:
                manifest.rejected = str(error)
                self._snapshots.describe(manifest)
        try:
            prune(self._snapshots)
        except (SnapshotError, OSError) as error:  # the next training prunes again
            log.warning("Old snapshots cannot be deleted: %s.", error)
        return manifest

    def _train_candidate(self) -> Snapshot:
        graph, settings = self._edges.graph, self._hyperparameters
        # A small graph is as quick on one core, and leaves the others to those that share them.
        torch.set_num_threads(1 if len(graph) < SMALL else self._threads)
        live = self._live_model.read()
        quick = self._quick and live is None
        with shown(self._figures, self._current, self._look) as progress:
            return candidate(
                graph, settings, self._snapshots, live, progress, self._edges.watermark, quick
            )

    def _look(self) -> None:
        """Within a training: whether it is still wanted."""
        if self._stop.is_set():
            raise TrainingStopped
        if not self._lease.held:
            raise LeaseLost("this trainer no longer holds MODEL_STORE")


def run(settings: TrainerSettings, process: Running) -> None:
    """The process `streamgcn trainer`.

    Raises:
        SettingsError: it was started several times at once by torchrun.
    """
    if parallel.processes() > 1:
        raise SettingsError(
            f"WORLD_SIZE={parallel.processes()} is refused: the trainer runs in one process; start "
            "`streamgcn trainer` without torchrun"
        )
    Retrain(settings, process.stop, process.figures, process.health).run()
