"""Small graphs whose right answers are known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA, TABLE
from consumer.edge.store import EdgeStore, Watermark
from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import scorer
from trainer.graph.interactions import InteractionGraph

Row = (
    tuple[str, str]
    | tuple[str, str, float]
    | tuple[str, str, float, int]
    | tuple[str, str, float, int, str]
)


def table(rows: Sequence[Row]) -> pa.Table:
    """Rows of (user, item, interaction = 1, milliseconds = 0, type = view)."""
    whole = [(*row, *(1.0, 0, "view")[len(row) - 2 :]) for row in rows]
    users, items, interactions, times, types = zip(*whole, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "interaction": pa.array(interactions, pa.float64()),
            "timestamp": pa.array([t * 1000 for t in times], pa.timestamp("us", tz="UTC")),
            "type": pa.array(types, pa.string()),
        }
    )


def store(place: Path | str, rows: Sequence[Row]) -> EdgeStore:
    """An edge store with these rows, all of partition 0, offsets 0 up."""
    made = EdgeStore.begin(str(place), "t")
    append(made, rows, 0)
    return made


def append(made: EdgeStore, rows: Sequence[Row], offset: int, partition: int = 0) -> None:
    """Commit further rows of a partition from `offset` on."""
    columns = table(rows)
    partitions = pa.array([partition] * len(rows), pa.int32())
    columns = columns.append_column("kafka_partition", partitions)
    offsets = pa.array(range(offset, offset + len(rows)), pa.int64())
    columns = columns.append_column("kafka_offset", offsets).select(SCHEMA.names).cast(SCHEMA)
    now = time.time_ns() // 1000
    after = {partition: offset + len(rows)}
    made.append(taken(columns, now), {partition: offset}, after, made.newest())


def stored(made: EdgeStore, watermark: Watermark | None = None) -> pa.Table:
    """All rows past a watermark in one table, in the one order."""
    windows = list(made.news(watermark or Watermark()).read())
    return pa.concat_tables(windows) if windows else TABLE.empty_table()


def pairs(made: InteractionGraph) -> list[Row]:
    """The edges as rows."""
    users, items = made.user_ids.values.to_pylist(), made.item_ids.values.to_pylist()
    return [(users[u], items[i]) for u, i in zip(made.users, made.items, strict=True)]


def graph(rows: Sequence[Row]) -> InteractionGraph:
    """The graph of these rows."""
    made = InteractionGraph()
    made.extend(table(rows))
    return made


def blocks(
    n_blocks: int = 4, users: int = 30, items: int = 12, edges: int = 7, seed: int = 0
) -> InteractionGraph:
    """Users who only touch items of their own block, `edges` random ones each.

    User n of block b is "b-n", its items "b-0" to "b-11": what is right to recommend is known.
    """
    rng = np.random.default_rng(seed)
    return graph(
        [
            (f"{b}-{user}", f"{b}-{item}")
            for b in range(n_blocks)
            for user in range(users)
            for item in rng.choice(items, edges, replace=False)
        ]
    )


def timed(made: InteractionGraph) -> InteractionGraph:
    """The same graph with a time of its own for each edge, in an order that means nothing."""
    made.timestamps = np.random.default_rng(1).permutation(len(made)).astype(np.int64) + 1
    return made


def own_block(embeddings: Embeddings, made: InteractionGraph, k: int = 12) -> float:
    """Share of the k best items of all users of `blocks` that are of the user's own block."""
    best = scorer(embeddings, made)(torch.arange(made.n_users)).topk(k).indices
    users = np.array([user.split("-")[0] for user in made.user_ids.values.to_pylist()])
    items = np.array([item.split("-")[0] for item in made.item_ids.values.to_pylist()])
    return float((items[best.numpy()] == users[:, None]).mean())
