"""What each rank does in the benchmarks of bench_ranks.py; a process alone is a rank, too.

python -m benchmarks.ranks NAME FOLDER     writes what it has found to FOLDER/RANK.json
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.other_models import CPU
from benchmarks.quality import MOVIELENS, split
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.store import EdgeStore
from trainer.fit.evaluate import ranking, scorer
from trainer.fit.fit import fit
from trainer.graph.stored import StoredGraph
from trainer.graph.weights import Weighing
from trainer.group import join
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.parts import Share
from trainer.lifecycle.snapshots import Snapshots
from trainer.memory import give_back
from trainer.model import next_item
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.low_pass import spectrum
from trainer.model.progress import quiet
from trainer.model.sequences import WINDOW
from trainer.ranks import Ranks

Found = dict[str, Any]
MILLIONS = float(os.environ.get("MILLIONS", "5"))
COMMIT = 1_000_000  # rows
STEPS = 20  # of next items in `memory`: each takes the same memory


def quality(ranks: Ranks, _: Path) -> Found:
    """Figures of the defaults, trained on all ranks."""
    train, test = (of.shared(ranks) for of in split(MOVIELENS))
    begun = time.monotonic()
    fitted = fit(train, Hyperparameters())
    found = ranking(scorer(fitted.embeddings, train), train, test)
    return found | {"seconds": time.monotonic() - begun, "vectors": fitted.settings.vectors or 0}


def store(_: Ranks, folder: Path) -> Found:
    """The edge store: users walk on through items that are near one another, some far more than
    others."""
    store = EdgeStore.begin(str(folder / "edges"), "t")
    edges = int(MILLIONS * 1e6)
    rng = np.random.default_rng(0)
    for offset in range(0, edges, COMMIT):
        n = min(COMMIT, edges - offset)
        users = (edges // 50 * rng.random(n) ** 2).astype(np.int64)
        items = (edges // 250 * rng.random(n) ** 3).astype(np.int64)
        columns = {
            "user_id": pa.array(users).cast(pa.string()),
            "item_id": pa.array(items).cast(pa.string()),
            "interaction": np.ones(n),
            "type": pa.array(["view"] * n),
            "timestamp": pa.array(1_600_000_000_000_000 + offset + np.arange(n)).cast(
                SCHEMA.field("timestamp").type
            ),
            "kafka_partition": np.zeros(n, np.int32),
            "kafka_offset": offset + np.arange(n),
        }
        rows = taken(pa.table(columns, schema=SCHEMA), time.time_ns() // 1_000)
        store.append(rows, {0: offset or None}, {0: offset + n}, store.newest())
    return {}


def memory(ranks: Ranks, folder: Path) -> Found:
    """Memory of this rank, from reading to a snapshot that is written, and again in a training that
    goes on from it."""
    begun, empty = time.monotonic(), _peak()
    stored = StoredGraph(str(folder / "edges"), "t", Weighing(), None, ranks)
    for _ in stored.read():
        pass
    stored.agree()
    give_back()
    next_item.LONGEST = STEPS
    given = Hyperparameters(epochs=1).for_graph(int(MILLIONS * 1e6), timed=True).usual()
    snapshots = Snapshots(str(folder / f"models-{ranks.size}"))
    peaks = {"empty": empty, "read": _peak()}
    seconds: dict[str, float] = {}
    version = ""
    for name in ("first", "again"):
        # No name here holds the live snapshot, as in the trainer: a training lets go of it.
        made = candidate(
            stored.graph, given, snapshots,
            snapshots.read(version, Share(ranks)) if version else None,
            quiet, stored.watermark,
        )  # fmt: skip
        seconds[name] = sum(made.manifest.seconds.values())
        snapshots.add(made, ranks)
        ranks.any(True)  # all have written
        if ranks.first:
            snapshots.finish(made)
        version = ranks.said(made.manifest.version.encode()).decode()
        del made
        peaks[name] = _peak()
    return {
        "edges": len(stored.graph), "items": stored.graph.n_items, "peaks_mb": peaks,
        "peak_mb": _peak(), "peak_over_empty_mb": _peak() - empty,
        "seconds": time.monotonic() - begun, "training_seconds": seconds,
    }  # fmt: skip


def traffic(ranks: Ranks, _: Path) -> Found:
    """Bytes that this rank gives to others."""
    train = split(MOVIELENS)[0].shared(ranks)
    given = Hyperparameters(epochs=1, recency=1.0, learned_order=1.0).usual()
    steps: list[int] = []
    next_item.fit(train, given, lambda *_: steps.append(_sent()))
    of_step = (steps[-1] - steps[0]) / (len(steps) - 1)
    size = min(next_item.MOST, max(next_item.FEWEST, len(train) * ranks.size // next_item.STEPS))
    asked = size * (2 * WINDOW + 1) + given.negatives
    sent = _sent()
    spectrum(train, 256, CPU)
    rounds = 5  # four, and one for the values
    of_round = (_sent() - sent) / rounds
    width, half = 256 + 50, ranks.size - 1
    shares = train.n_items * half / ranks.size  # all_reduce gives two of an array, all_gather one
    return {
        "items": train.n_items, "batch": size, "step bytes": of_step,
        "step expected": 2 * half / ranks.size * 4 * asked,
        "gradients of both tables": 2 * half / ranks.size * 4 * 2 * train.n_items * given.dim,
        "round bytes": of_round,
        # Products and basis, the Gram matrix, its eigenvectors in float64, and the vectors once.
        "round expected": 4 * width * (3 * shares + width * half + 2 * width * half)
        + 4 * 256 * shares / rounds,
    }  # fmt: skip


def _sent() -> int:
    """Bytes that this process has written, to sockets too."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


RUNS = {each.__name__: each for each in (quality, store, memory, traffic)}

if __name__ == "__main__":
    ranks = join(torch.device("cpu"))
    found = RUNS[sys.argv[1]](ranks, Path(sys.argv[2]))
    (Path(sys.argv[2]) / f"{ranks.rank}.json").write_text(json.dumps(found))
    ranks.leave()
