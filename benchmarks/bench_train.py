"""Training against its rivals and limits, one JSON object a benchmark; names choose among them.

propagation  three layers against torch_geometric.nn.LGConv on a plain edge_index
rivals       Gowalla: time to LightGCN's published recall@20, against PyG's LightGCN with BPR and
             implicit's ALS and BPR
movielens    ml-latest-small, newest tenth of each user held out: defaults against popularity, item
             neighbours, ALS, BPR, EASE and SASRec; the gcn's RMSE against user and item biases
movielens_last  the same models, the last edge of each user held out
games        the video games, newest tenth; games_last, the last edge
warm         a retrain after 1 % more edges against one from scratch
vectors      quality and time of the low pass by its number of vectors
memory       peak resident memory of a synthetic power-law graph against 12 GB, and the time
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch_geometric.nn import LGConv

from benchmarks.bench_gowalla import DATA, published
from benchmarks.named import run_named
from benchmarks.other_models import CPU, Result, implicit_models, pyg_lightgcn, timed
from benchmarks.quality import games, games_last, movielens, movielens_last
from streamgcn.files.load import table
from trainer.fit.evaluate import ranking, scorer
from trainer.fit.fit import OVER, fit, fit_all
from trainer.graph.ids import Ids
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model import blend
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.learned import KINDS
from trainer.model.lightgcn import EPOCHS, LightGCN
from trainer.model.low_pass import LowPass
from trainer.model.progress import quiet

TARGET = 0.1830  # LightGCN's published recall@20
MEMORY_EPOCHS = 5
LIMIT_GB = 12.0


def gowalla() -> tuple[InteractionGraph, InteractionGraph]:
    """The published split; both graphs have the same nodes."""
    train = InteractionGraph()
    train.extend(table(DATA / "gowalla-train.parquet"))
    test = InteractionGraph(train.user_ids, train.item_ids)
    test.extend(table(DATA / "gowalla-test.parquet"))
    return train.subset(np.ones(len(train), bool)), test


def propagation() -> Result:
    """Forward of three layers at 64 dimensions; the median of five."""
    train, _ = gowalla()
    adjacency = Adjacency.of(train, CPU)
    model = LightGCN(train.n_users, train.n_items, 64, 3)
    edges, conv = adjacency.incidence.edge_index, LGConv()
    nodes = torch.cat([model.users, model.items]).detach()

    def message_passing() -> None:
        state = nodes
        for _ in range(3):
            state = conv(state, edges)

    with torch.no_grad():
        ours = float(np.median([timed(lambda: model(adjacency)) for _ in range(5)]))
        theirs = float(np.median([timed(message_passing) for _ in range(5)]))
    return {"seconds": ours, "lgconv_seconds": theirs, "ratio": theirs / ours}


def rivals() -> Result:
    """Seconds to TARGET (the neighbours alone pass it), and the others'."""
    train, test = gowalla()
    alone = replace(published(), low_pass_weight=0.0, learned_weight=0.0)
    begun = time.monotonic()
    embeddings = fit_all(train, alone, quiet)
    seconds = time.monotonic() - begun
    figures = ranking(scorer(embeddings, train), train, test)
    assert figures["recall@20"] > TARGET
    made: Result = {"neighbours alone": figures | {"seconds": seconds}}
    made["PyG LightGCN, BPR"] = pyg_lightgcn(train, test, 10 * seconds)
    return made | implicit_models(train, test)


def warm() -> Result:
    """With nothing set: both fit the whole of 100 %, the warm one from what 99 % left and chose."""
    train, test = gowalla()
    older = train.subset(np.random.default_rng(0).random(len(train)) < 0.99)
    last = fit(older, Hyperparameters())
    made: Result = {}
    seconds = []
    for name, chosen, start in (
        ("cold", Hyperparameters(), None),
        ("warm", last.settings, last.start),
    ):
        begun = time.monotonic()
        embeddings = fit(train, chosen, start=start).embeddings
        seconds.append(time.monotonic() - begun)
        figures = ranking(scorer(embeddings, train), train, test)
        made[name] = figures | {"seconds": seconds[-1]}
    return made | {"ratio": seconds[1] / seconds[0]}


def vectors() -> Result:
    """The low pass alone, 128 to 1,024 vectors."""
    train, test = gowalla()
    chosen = published()
    made: Result = {}
    for n in (128, 256, 512, 1_024):
        begun = time.monotonic()
        settings = replace(chosen, vectors=n)
        fitted = LowPass().fit(train, settings)
        seconds = time.monotonic() - begun
        part = fitted.embeddings(train, settings)
        figures = ranking(scorer(part, train), train, test, most=10_000)
        made[str(n)] = figures | {"seconds": seconds}
    return made


def power_law(millions: float) -> InteractionGraph:
    """About so many million edges, 50 a user and 250 an item on average; far more at the heads."""
    n = int(millions * 1e6)
    rng = np.random.default_rng(0)
    n_users, n_items = n // 50, n // 250
    users = (n_users * rng.random(n) ** 2).astype(np.int64)
    items = (n_items * rng.random(n) ** 3).astype(np.int64)
    keys = np.unique(users << 32 | items)
    return InteractionGraph(
        Ids(pa.array(np.arange(n_users)).cast("string")),
        Ids(pa.array(np.arange(n_items)).cast("string")),
        (keys >> 32).astype(np.int32),
        (keys & 0xFFFFFFFF).astype(np.int32),
        np.ones(len(keys), np.float32),
        np.zeros(len(keys), np.int64),
    )


def memory() -> Result:
    """The trainer's fit over 25M edges, or as many millions as the environment's MILLIONS says.

    Holding out, choosing, training and measuring, then the whole graph. Weights and number of
    vectors are given, lest the choice leaves a part out; the epochs are few: each takes the same
    memory and the same time.
    """
    graph = power_law(float(os.environ.get("MILLIONS", "25")))
    laps: list[tuple[int, float]] = []  # epoch and when it ended
    begun = time.monotonic()
    given = Hyperparameters(epochs=MEMORY_EPOCHS, vectors=1_024)
    weights = {part.weight: 1.0 for part in blend.PARTS}

    def lap(stage: str, done: int, *_: object) -> None:
        if stage == given.model:
            laps.append((done, time.monotonic()))

    fitted = fit(graph, given.filled(weights), lap)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    epochs = [after - before for (_, before), (n, after) in pairwise(laps) if n > 1]
    # Trained are: on the edges that are chosen on one kind in full, then the kept edges.
    chosen_on, kept = (float(np.median(each)) for each in np.split(np.array(epochs), 2))
    return {
        "edges": len(graph), "users": graph.n_users, "items": graph.n_items,
        "columns": fitted.embeddings.outgoing.shape[1],
        "peak_gb": peak, "limit_gb": LIMIT_GB, "ratio": peak / LIMIT_GB,
        "mb_per_million_edges": peak * 1e3 / (len(graph) / 1e6),
        "seconds": seconds, "stages": fitted.seconds,
        "seconds_per_epoch": kept, "seconds_per_epoch_of_choosing": chosen_on,
        f"seconds_with_{EPOCHS}_epochs": seconds + added(kept, chosen_on),
    }  # fmt: skip


def added(kept: float, chosen_on: float) -> float:
    """Seconds that the usual number of epochs takes more than MEMORY_EPOCHS, by those of one."""
    more = EPOCHS - MEMORY_EPOCHS
    kinds = len(KINDS) * (EPOCHS // 3 - MEMORY_EPOCHS // 3)
    return (more + EPOCHS // OVER - 1) * kept + (more + kinds) * chosen_on


QUALITY = (movielens, movielens_last, games, games_last)
BENCHMARKS = (propagation, rivals, *QUALITY, warm, vectors, memory)

if __name__ == "__main__":
    run_named(BENCHMARKS)
