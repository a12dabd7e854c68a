"""A synthetic shop and a model of it in the default blend's shape, for measurements of speed.

The model's parts are fitted by the trainer's own code, but for two steps of LightGCN (or one pass
of next items) and one round of the low pass: the tables have the right shapes and a spectrum, not
the best quality.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.bench_gowalla import published
from trainer.embedding.embeddings import Embeddings
from trainer.graph.ids import Ids
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.manifest import Manifest, Snapshot, new_version
from trainer.lifecycle.snapshots import Snapshots
from trainer.model import blend
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

Result = dict[str, Any]
TASTES = 200
OF_ONES_TASTE = 0.8  # share of a user's edges that are to items of the user's taste
MONTH_MS = 30 * 86_400_000


class Sizes(NamedTuple):
    """Of the shop; with `order` its model has four parts, and own edges count by their age."""

    users: int = 100_000
    items: int = 50_000
    edges: int = 2_500_000
    order: bool = False


def graph(sizes: Sizes) -> InteractionGraph:
    """About so many edges, users and items drawn by power laws; ids of 8 characters.

    Users belong to tastes, items too: four of five edges are between equal ones.
    """
    n_users, n_items, n_edges, _ = sizes
    rng = np.random.default_rng(0)
    users = (n_users * rng.random(n_edges) ** 1.5).astype(np.int64)
    any_item = (n_items * rng.random(n_edges) ** 2).astype(np.int64)
    same = any_item // TASTES * TASTES + users % TASTES
    items = np.where(rng.random(n_edges) < OF_ONES_TASTE, same, any_item) % n_items
    users = np.concatenate([users, np.arange(n_users), rng.integers(0, n_users, n_items)])
    items = np.concatenate([items, rng.integers(0, n_items, n_users), np.arange(n_items)])
    keys = np.unique(users << 32 | items)
    return InteractionGraph(
        Ids(pa.array([f"u{n:07d}" for n in range(n_users)])),
        Ids(pa.array([f"i{n:07d}" for n in range(n_items)])),
        (keys >> 32).astype(np.int32),
        (keys & 0xFFFFFFFF).astype(np.int32),
        np.ones(len(keys), np.float32),
        int(time.time() * 1000) - rng.integers(0, MONTH_MS, len(keys)),
    )


def of_taste(user: str, item: str, sizes: Sizes) -> str:
    """An item as popular as this one that is of the user's taste; all are ids of the graph."""
    number = int(item[1:]) // TASTES * TASTES + int(user[1:]) % TASTES
    return f"i{number % sizes.items:07d}"


def embeddings(graph: InteractionGraph, order: bool) -> tuple[Embeddings, Hyperparameters]:
    """The default blend: 1,024 + 128 dimensions and 256 neighbours a row.

    With `order` it has transitions and next items, and recency; else neighbours and LightGCN.
    """
    chosen = replace(published(), epochs=2)
    if order:  # the usual numbers, as a training has them that cannot choose
        chosen = Hyperparameters(epochs=1).for_graph(len(graph), timed=True).usual()
    basis = torch.randn(graph.n_items, chosen.vectors or 0)  # a start, so that one round is enough
    return blend.blend(graph, blend.fit(graph, chosen, quiet, {"basis": basis}), chosen), chosen


def prepare(sizes: Sizes, folder: Path) -> None:
    """The edges as `edges.parquet` and a live snapshot in `models`, if they are not there yet."""
    snapshots = Snapshots(str(folder / "models"))
    if snapshots.marks.live():
        return
    shop = graph(sizes)
    pq.write_table(
        pa.table(
            {
                "user_id": shop.user_ids.values.take(pa.array(shop.users)),
                "item_id": shop.item_ids.values.take(pa.array(shop.items)),
                "timestamp": shop.timestamps,
            }
        ),
        folder / "edges.parquet",
    )
    made, chosen = embeddings(shop, sizes.order)
    manifest = Manifest(
        version=new_version(),
        model=made.model,
        layers=made.layers,
        cosine=made.cosine,
        trained_at=int(time.time() * 1000),
        users=shop.n_users,
        items=shop.n_items,
        edges=len(shop),
        store_version=0,
        offsets={},
        settings=asdict(chosen),
        metrics={},
        seconds={},
    )
    snapshots.write(Snapshot(manifest, made, shop.user_ids.values, shop.item_ids.values))
    snapshots.promote(manifest.version)
