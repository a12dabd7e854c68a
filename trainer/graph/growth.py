"""The graph grows by what the edge store has new, a window at a time, in the one order.

Memory goes with the edges and a window, not with the events. Whoever grows step by step ends
with the same edges as one that reads all at once: what a `forget` took out of the store is taken
out of the graph, and what the store still has of the user is read again.

Of several ranks each takes in the rows of its own users.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.news import News
from consumer.edge.schema import TABLE
from consumer.edge.store import EdgeStore, Watermark
from consumer.edge.traces import Notice, matching, notices, split
from trainer.graph.interactions import InteractionGraph
from trainer.graph.own_users import own_rows

PART = 16  # rows wait until they are a PART-th of the graph's edges


class Step(NamedTuple):
    """Rows that the graph has taken in: rows of the edge store, without those of type `forget`.

    notices: users who were forgotten, by the digests of their ids; watermark: how far the graph is
    after this step; new: how many of the rows were not read before, and those of type `forget`.
    """

    rows: pa.Table
    new: int
    notices: dict[str, Notice]
    watermark: Watermark


def grow(graph: InteractionGraph, store: EdgeStore, watermark: Watermark) -> Iterator[Step]:
    """Take into `graph` what the store holds past the watermark, up to which the graph is.

    Raises:
        Replaced: the graph is of another store; begin with an empty one.
        StoreError: the store cannot be read; go on at the last step's watermark.
    """
    news = store.news(watermark)
    watermark = news.watermark
    forgotten = take_out(graph, news)
    if forgotten:
        yield forgotten
    for rows in joined(news.read(), graph):
        events, _ = split(rows)
        kept = own_rows(events, graph.ranks)
        if graph.ranks.several:
            graph.item_ids.grow(events["item_id"])  # in the order in which one process meets them
        graph.extend(kept)
        watermark = watermark.after(rows)
        yield Step(kept, len(rows) - len(events) + len(kept), notices(rows), watermark)
    yield Step(TABLE.empty_table(), 0, {}, news.end(watermark))


def joined(windows: Iterable[pa.Table], graph: InteractionGraph) -> Iterator[pa.Table]:
    """The rows of windows, those of several together where these are few beside the graph's edges.

    An extension of the graph copies all edges: with the rows of one window each, the time would go
    with the square of the edges. Rows wait until they are a sixteenth of the edges, so it goes with
    the edges, and so does memory.

    Yields:
        A table for each window, empty where its rows come with those of a later one; at the end
        what is left.
    """
    waiting: list[pa.Table] = []
    for rows in windows:
        waiting.append(rows)
        if sum(map(len, waiting)) >= len(graph) // PART:
            yield pa.concat_tables(waiting)
            waiting = []
        else:
            yield TABLE.empty_table()
    if waiting:
        yield pa.concat_tables(waiting)


def take_out(graph: InteractionGraph, news: News) -> Step | None:
    """Take users out of the graph whom the news say to be forgotten, but for what is left of them.

    Raises:
        StoreError: the store cannot be read; the graph is as it was.
    """
    if not graph.n_users:
        return None
    forgotten = notices(news.notices())
    numbers = matching(graph.user_ids.values, forgotten)
    if not numbers:
        return None
    users = graph.user_ids.values.take(pa.array(numbers)).to_pylist()
    left = news.read_before(users)
    graph.forget(numbers)
    graph.extend(left)
    return Step(left, 0, forgotten, news.watermark)


def read_again(
    graph: InteractionGraph, store: EdgeStore, watermark: Watermark, users: Collection[str]
) -> pa.Table:
    """Take the edges of some users from the store, as of the watermark; returns their rows.

    Raises:
        Replaced, StoreError: as `grow`; the graph is as it was.
    """
    news = store.news(watermark)
    left = news.read_before(users)
    known = pc.index_in(pa.array(list(users), pa.string()), value_set=graph.user_ids.values)
    graph.forget(known.drop_null().to_pylist())
    graph.extend(left)
    return left
