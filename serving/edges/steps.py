"""The edge store's new rows for a process that holds all users, or those of some partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.files import USERS
from consumer.edge.schema import TABLE
from consumer.edge.store import EdgeStore, Watermark
from consumer.edge.traces import Notice, notices, split
from serving.edges.strangers import SEVERAL
from trainer.graph.arrays import Int32s
from trainer.graph.growth import grow, joined, take_out
from trainer.graph.interactions import InteractionGraph

Held = frozenset[int] | None  # partitions whose users a process holds; None: all, and any to come

IDS_AT_ONCE = 10_000
NOBODY = USERS.empty_table()


class Step(NamedTuple):
    """Rows that the graph has taken in.

    notices: users who were forgotten, by the digests of their ids; watermark: how far the graph is
    after this step; others: as `Shared.others`, of rows that the graph has not taken in.
    """

    rows: pa.Table
    notices: Mapping[str, Notice]
    watermark: Watermark
    others: pa.Table = NOBODY


def in_parts(others: pa.Table) -> Iterator[tuple[list[str], Int32s]]:
    """Users and the partitions of their rows, int32, some at a time: strings of Python that are
    made all at once leave holes in Python's memory when they go, as others that stay were made
    between them."""
    for begin in range(0, len(others), IDS_AT_ONCE):
        part = others.slice(begin, IDS_AT_ONCE)
        partitions = pc.fill_null(part["kafka_partition"], SEVERAL)  # of another writer's rows
        yield part["user_id"].to_pylist(), partitions.to_numpy()


def steps(
    graph: InteractionGraph, store: EdgeStore, watermark: Watermark, held: Held
) -> Iterator[Step]:
    """Take the new rows of the held partitions into the graph, which is up to the watermark.

    Raises:
        Replaced: the graph is of another store; begin with an empty one.
        StoreError: the store cannot be read; go on at the last step's watermark.
    """
    if held is None:
        for step in grow(graph, store, watermark):
            yield Step(step.rows, step.notices, step.watermark)
        return
    news = store.news(watermark)
    watermark = news.watermark
    forgotten = take_out(graph, news)
    if forgotten:
        yield Step(forgotten.rows, forgotten.notices, watermark)
    others: list[pa.Table] = []  # of the last window

    def windows() -> Iterator[pa.Table]:
        for shared in news.shared(of_partitions(held)):
            others.append(shared.others)
            yield shared.rows

    for rows in joined(windows(), graph):
        kept, _ = split(rows)
        graph.extend(kept)
        watermark = watermark.after(rows)
        yield Step(kept, notices(rows), watermark, others.pop() if others else NOBODY)
    yield Step(TABLE.empty_table(), {}, news.end(watermark))


def of_partitions(partitions: Set[int]) -> pc.Expression:
    """The condition for the rows of these partitions."""
    numbers = pa.array(sorted(partitions), TABLE.field("kafka_partition").type)
    return pc.field("kafka_partition").isin(numbers)


def gained(before: Set[int], held: Held) -> pc.Expression:
    """The condition for the rows of the partitions that are held now and were not before."""
    return ~of_partitions(before) if held is None else of_partitions(held - before)
