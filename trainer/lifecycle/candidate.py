"""One training: from the graph and the live snapshot to a new snapshot, judged by the gate."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict

from consumer.edge.store import Watermark
from trainer.fit.fit import fit_kept, fit_over
from trainer.graph import whole
from trainer.graph.arrays import Int8s
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.all_items import with_all_items
from trainer.lifecycle.by_first import by_each
from trainer.lifecycle.gate import objection
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError, StoreAway, new_version
from trainer.lifecycle.parts import Share, parts_for
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.trained_edges import Trained
from trainer.lifecycle.warm import aligned, aligned_start, chosen, goes_on, tensors
from trainer.memory import give_back
from trainer.model import unread
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.part import State
from trainer.model.progress import Progress

log = logging.getLogger("trainer")


def candidate(
    graph: InteractionGraph,
    settings: Hyperparameters,
    snapshots: Snapshots,
    live: Snapshot | None,
    progress: Progress,
    read: Watermark,
    quick: bool = False,
) -> Snapshot:
    """Train, going on from the live snapshot where that is possible. Nothing is written.

    Each of several ranks has the snapshot of its own users; the first one has it with all items,
    the others with their own.

    Args:
        read: up to where of the edge store the graph is.
        quick: without a live snapshot make one part alone, with usual numbers, instead of choosing,
            which takes minutes. The manifest's `chosen_at` is then 0, so that the next training
            chooses.

    Raises:
        NothingToLearn, NothingJoined, Diverged, TrainingStopped, DeviceMissing: as `fit_kept`.
        StoreAway: the live snapshot cannot be read now.
    """
    timed, edges, users = whole.timed(graph), whole.edges(graph), whole.users(graph)
    if not timed:
        unread.warn_without_times(settings)
    live = live and aligned(live, graph)
    settings = settings.for_graph(edges, timed)
    start = _start(snapshots, live, graph) if live and goes_on(live, edges, settings) else None
    novelty = _novelty(snapshots, live, graph) if live else None
    chosen_at = edges
    if live and start:
        settings = settings.filled(chosen(live.manifest))
        chosen_at = live.manifest.chosen_at
    if quick and live is None and settings.missing():
        settings, chosen_at = settings.quick().usual(), 0
    log.info(
        "Training %s on %d edges%s of %d users and %d items, %s.",
        settings.model, edges, _weak(graph), users, graph.n_items,
        f"going on from {live.manifest.version}" if live and start else "from scratch",
    )  # fmt: skip
    trial = fit_kept(graph, settings, progress, start, novelty)
    rejected = objection(trial, graph, live, novelty)
    learned, embeddings = trial.learned, trial.candidate
    if learned.left_out:
        # What is made now needs as much memory as each of these.
        del trial, embeddings
        live = start = novelty = None
        give_back()
        embeddings = fit_over(graph, learned, progress)
    newest = max(read.logs, default=0)
    manifest = Manifest(
        version=graph.ranks.said(new_version(snapshots.versions()).encode()).decode(),
        model=settings.model,
        layers=embeddings.layers,
        cosine=embeddings.cosine,
        trained_at=int(time.time() * 1000),
        users=users,
        items=graph.n_items,
        edges=edges,
        store_version=max(read.version, 0),
        offsets=dict(read.offsets(newest)),
        log=newest,
        stamp=read.stamp or 0,
        chosen_at=chosen_at,
        settings=asdict(learned.settings),
        metrics=learned.metrics,
        seconds=learned.seconds,
        rejected=rejected,
        parts=parts_for(users, graph.ranks),
    )
    made = Snapshot(
        manifest,
        embeddings,
        graph.user_ids.values,
        graph.item_ids.values,
        tensors(learned.start),
        Trained.of(graph, learned.newest),
    )
    return with_all_items(made, graph.ranks)


def _start(snapshots: Snapshots, live: Snapshot, graph: InteractionGraph) -> State | None:
    try:
        share = Share(graph.ranks)
        kept = by_each(lambda: snapshots.start(live.manifest, share), graph.ranks)
        return aligned_start(live, kept, graph)
    except StoreAway:
        raise
    except SnapshotError as error:
        log.warning("%s; training from scratch.", error)
        return None


def _novelty(snapshots: Snapshots, live: Snapshot, graph: InteractionGraph) -> Int8s | None:
    try:
        share = Share(graph.ranks)
        trained = by_each(lambda: snapshots.trained(live.manifest, share), graph.ranks)
    except StoreAway:
        raise
    except SnapshotError as error:
        log.warning(
            "%s; the gate will not compare the new model with the live model %s.",
            error, live.manifest.version,
        )  # fmt: skip
        return None
    return trained.novelty(live.user_ids, live.item_ids, graph) if trained else None


def _weak(graph: InteractionGraph) -> str:
    """Words on edges that no filter takes for anything, if there are any."""
    n = graph.ranks.total(int((graph.strengths == 0).sum()))
    return f" ({n} of them without strength: a weight of 0 or less)" if n else ""
