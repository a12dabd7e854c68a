"""The trainer's process: follow the edge store, retrain when due, put the new snapshot live.

Under torchrun several processes train: each reads the edges of its own users. The first one holds
the lease, says when, writes and reports; what a method does alone it does there.

This file is longer than 250 lines because a turn of the trainer is told here as a whole, with what
becomes of it where a store, a training or another process fails.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

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
from trainer.graph import whole
from trainer.graph.stored import StoredGraph
from trainer.group import RankLost, join
from trainer.lifecycle import metrics
from trainer.lifecycle.by_first import by_each, by_first
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.lease import Lease, LeaseLost
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.live_of_ranks import live_snapshot
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError
from trainer.lifecycle.progress import shown
from trainer.lifecycle.promotion import LiveChanged, named, put_live
from trainer.lifecycle.pruning import prune
from trainer.lifecycle.running_training import RunningTraining
from trainer.lifecycle.schedule import Schedule
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.together import RankEnds, Together
from trainer.lifecycle.writing import Writing
from trainer.memory import give_back
from trainer.model.progress import Progress, TrainingStopped
from trainer.ranks import ALONE, Ranks, number, started
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
        ranks: Ranks = ALONE,
    ) -> None:
        """Raises DeviceMissing where the settings ask for a GPU that is not there, SettingsError
        where MODEL_STORE or STREAMGCN_MODEL_FILE is refused."""
        log.info("Training will run on %s.", device(settings.device))
        self._settings, self._ranks = settings, ranks
        self._together = Together(ranks, log)
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
            settings.edge_store, settings.kafka_topic, settings.weighing(),
            settings.retention_days, ranks,
        )  # fmt: skip
        place = f"MODEL_STORE {settings.model_store}"
        self._models_away = Outage(log, f"{place} cannot be used", f"{place} can be used again")
        self._writing = Writing(self._snapshots, ranks, self._models_away, stop)
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
        """Look, train, wait, until told to stop. Nothing that goes wrong in between ends it.

        Raises:
            RankLost: another rank has ended.
            RankEnds: something went wrong on this rank alone.
        """
        try:
            self._run()
        finally:
            self._lease.release()
        log.info("Stopped.")

    def _run(self) -> None:
        while not self._ranks.any(self._stop.is_set()):
            wait = LOOK_EVERY
            try:
                self._turn()
                self._unforeseen.worked()
            except SettingsError:
                raise  # of the edge store, at first; waiting does not mend it
            except (RankLost, RankEnds):
                raise
            except Exception as error:
                self._together.end(error)
                wait = max(wait, self._unforeseen.failed(in_one_line(error)))
            self._health.needs(
                store=self._edges.trouble,
                models=""
                if self._lease.held
                else "another trainer holds MODEL_STORE, or it is away",
            )
            self._health.alive()
            self._stop.wait(wait)

    def _turn(self) -> None:
        with self._health.busy("reading the edge store"):
            self._read()
        with self._together.waiting(self._health):
            may_write = self._may_write()
        if not may_write:
            return
        with self._health.busy("erasing forgotten users from the snapshots"):
            self._erase()
        with self._together.waiting(self._health):
            due = self._schedule.due(self._edges.graph, self._together.now())
            due = due and self._together.have_read(self._edges, self._read)
        if due:
            with self._health.busy("training"):
                give_back()  # what reading has freed
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
        return self._ranks.any(self._ranks.first and self._holds())

    def _holds(self) -> bool:
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
        if not self._ranks.first:
            self._edges.forgotten.clear()
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
        began, edges = self._together.now(), whole.edges(self._edges.graph)
        try:
            with self._current.of(edges) if self._ranks.first else nullcontext():
                manifest = self._train_and_promote()
        except (RankLost, RankEnds):
            raise
        except (TrainingStopped, Stopped):
            log.info("The training was stopped, as the process ends; the live model stays in use.")
            return
        except LeaseLost as error:
            log.warning("The training was stopped and its model dropped: %s.", error)
            return
        except NothingJoined as error:  # the events to come will mend it
            seconds = self._schedule.wait(self._together.now())
            if not self._said_nothing_joined:
                log.warning("No model is made: %s. It is tried every %.0f s.", error, seconds)
            self._said_nothing_joined = True
            return
        except Exception as error:  # whatever it is, the live model stays and the process goes on
            self._together.end(error)
            self._figures.metrics.count("trainings", metrics.FAILED)
            seconds = self._schedule.failed(self._together.now())
            log.error(
                "Training failed (%s); the live model stays in use. It is tried again in %.0f s.",
                in_one_line(error), seconds,
            )  # fmt: skip
            return
        self._quick = self._said_nothing_joined = False
        if manifest.chosen_at:  # else the one with chosen numbers follows at once
            self._schedule.succeeded(self._edges.graph, began, self._together.now())
        if manifest.rejected:
            log.warning("Model %s is rejected: %s.", manifest.version, manifest.rejected)
        else:
            log.info("Model %s is live; serving loads it next.", manifest.version)
        metrics.report(self._figures, manifest)

    def _train_and_promote(self) -> Manifest:
        """Train, write the snapshot, and put it live unless the gate or an operator is against."""
        before = by_each(lambda: named(self._snapshots), self._ranks)
        snapshot = self._train_candidate()
        self._writing.write(snapshot, self._lease.confirm)
        return by_first(lambda: self._promoted(snapshot.manifest, before), self._ranks)

    def _promoted(self, manifest: Manifest, before: str | None) -> Manifest:
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
        torch.set_num_threads(1 if whole.edges(graph) < SMALL else self._threads)
        snapshots, read = self._snapshots, self._edges.watermark
        with self._shown() as progress:
            # No name here holds the live snapshot: the training lets go of it before the end.
            return candidate(
                graph, settings, snapshots,
                live_snapshot(self._live_model, snapshots, self._ranks),
                progress, read, self._quick,
            )  # fmt: skip

    @contextmanager
    def _shown(self) -> Iterator[Progress]:
        if not self._ranks.first:
            yield lambda *_: self._look()
            return
        with shown(self._figures, self._current, self._look) as progress:
            yield progress

    def _look(self) -> None:
        """Within a training: whether it is still wanted."""
        self._together.look(self._stop.is_set(), not self._lease.held)


def run(settings: TrainerSettings, process: Running) -> None:
    """The process `streamgcn trainer`, or one of several that torchrun has started.

    Raises:
        SettingsError: torchrun has started several, and the model is not shared by processes.
        RankLost, RankEnds: as `Retrain.run`.
    """
    if started() > 1 and settings.model == "gcn":
        raise SettingsError(
            "STREAMGCN_MODEL=gcn is refused under torchrun: the gcn is trained in one process; "
            "start `streamgcn trainer` without torchrun, or set STREAMGCN_MODEL to blend"
        )
    if number() > 0:
        logging.disable(logging.CRITICAL)  # the first process says it for all
    with process.health.busy("waiting for the other processes of torchrun"):
        ranks = join(device(settings.device))
    try:
        Retrain(settings, process.stop, process.figures, process.health, ranks).run()
    except RankLost:
        if ranks.first:
            raise
        raise SystemExit(1) from None  # the first process says it for all
    finally:
        ranks.leave()
