"""The user-item graph as arrays: grows from rows of the edge store, never renumbers a node.

An edge is the latest state of a (user, item) pair in the order of the rows: its weight is the
last interaction's, and a row of type `remove` takes it out. A row of type `forget` takes out a
user: its edges, and its id, of which the node's number is left.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from consumer.erasure import matching, split

REMOVE = "remove"
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


class Ids:
    """Node numbers 0.. in the order in which the ids were first seen."""

    def __init__(self, ids: pa.Array | None = None) -> None:
        self.values: pa.Array = pa.array([], pa.string()) if ids is None else ids

    def __len__(self) -> int:
        return len(self.values)

    def grow(self, ids: pa.ChunkedArray) -> Int32s:
        """Numbers of `ids`, new ones appended. Returns int32 [len(ids)]."""
        coded = ids.cast(pa.string()).combine_chunks().dictionary_encode()
        known = pc.index_in(coded.dictionary, value_set=self.values)
        new = coded.dictionary.filter(pc.is_null(known))
        numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers[np.isnan(numbers)] = len(self.values) + np.arange(len(new))
        self.values = pa.concat_arrays([self.values, new])
        grown: Int32s = numbers.astype(np.int32)[coded.indices.to_numpy()]
        return grown

    def blank(self, numbers: list[int]) -> None:
        """Put the empty string, which is nobody's id, for the ids of these nodes."""
        gone = np.zeros(len(self.values), np.bool_)
        gone[numbers] = True
        self.values = pc.if_else(pa.array(gone), "", self.values)


def _int32s() -> Int32s:
    return np.empty(0, np.int32)


@dataclass
class InteractionGraph:
    """Edges sorted by user, then item; no pair twice.

    users, items: int32 [edges]; weights: float32 [edges], the last interaction;
    timestamps: int64 [edges], epoch milliseconds.
    """

    user_ids: Ids = field(default_factory=Ids)
    item_ids: Ids = field(default_factory=Ids)
    users: Int32s = field(default_factory=_int32s)
    items: Int32s = field(default_factory=_int32s)
    weights: Float32s = field(default_factory=lambda: np.empty(0, np.float32))
    timestamps: Int64s = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_users(self) -> int:
        """Users seen, those without an edge included."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items seen, those without an edge included."""
        return len(self.item_ids)

    def extend(self, rows: pa.Table) -> None:
        """Add rows of the edge store's schema, in their order, to the graph in place."""
        rows, digests = split(rows)
        self.forget(matching(self.user_ids.values, digests))
        if not len(rows):
            return
        users = self.user_ids.grow(rows["user_id"])
        items = self.item_ids.grow(rows["item_id"])
        keys = _keys(users, items)
        # The last row of each pair: the first one of the reversed rows.
        keys, last = np.unique(keys[::-1], return_index=True)
        last = len(rows) - 1 - last
        alive = ~pc.equal(rows["type"], REMOVE).to_numpy()[last]
        milliseconds = rows["timestamp"].cast(pa.int64()).to_numpy() // 1000

        old = _keys(self.users, self.items)
        kept = ~_contains(keys, old)
        merged = np.concatenate([old[kept], keys[alive]])
        order = np.argsort(merged, kind="stable")
        merged = merged[order]
        new = last[alive]
        weights = rows["interaction"].to_numpy()[new].astype(np.float32)
        self.weights = np.concatenate([self.weights[kept], weights])[order]
        self.timestamps = np.concatenate([self.timestamps[kept], milliseconds[new]])[order]
        self.users = (merged >> 32).astype(np.int32)
        self.items = (merged & 0xFFFFFFFF).astype(np.int32)

    def forget(self, users: list[int]) -> None:
        """Take out these user numbers' edges and ids; an id that comes again is a new user."""
        if users:
            self.user_ids.blank(users)
            kept = ~np.isin(self.users, users)
            self.users, self.items = self.users[kept], self.items[kept]
            self.weights, self.timestamps = self.weights[kept], self.timestamps[kept]

    def subset(self, mask: npt.NDArray[np.bool_]) -> InteractionGraph:
        """The same nodes with the edges where `mask` (bool [edges]) is true."""
        return InteractionGraph(
            self.user_ids,
            self.item_ids,
            self.users[mask],
            self.items[mask],
            self.weights[mask],
            self.timestamps[mask],
        )

    def newest(self, share: float) -> npt.NDArray[np.bool_]:
        """Mask [edges] of each user's newest edges: `share` of them, at least one of five or more.

        Each user's own newest, not the newest of all: where users come in sessions the latter
        belong to users of whom nothing older is left to recommend from. Edges of the same time are
        taken at random, so that data without times is held out at random.
        """
        chance = np.random.default_rng(0).permutation(len(self))
        by_age = np.lexsort((chance, self.timestamps, self.users))
        start = self.row_starts()
        counts = np.diff(start)
        rank = np.arange(len(self)) - start[self.users]  # users are sorted, so by_age keeps rows
        taken = np.maximum((counts * share).astype(np.int64), counts >= 5)
        mask = np.zeros(len(self), np.bool_)
        mask[by_age] = rank >= (counts - taken)[self.users]
        return mask

    def own(self, users: Int64s) -> tuple[Int64s, Int64s]:
        """Items of users int64 [block]: starts int64 [block + 1], item numbers int64 [edges]."""
        rows = self.row_starts()
        counts = rows[users + 1] - rows[users]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        at = np.arange(starts[-1]) + np.repeat(rows[users] - starts[:-1], counts)
        return starts, self.items[at].astype(np.int64)

    @property
    def user_degrees(self) -> Int64s:
        """Edges of each user, int64 [users]."""
        return np.bincount(self.users, minlength=self.n_users)

    @property
    def item_degrees(self) -> Int64s:
        """Edges of each item, int64 [items]."""
        return np.bincount(self.items, minlength=self.n_items)

    def row_starts(self) -> Int64s:
        """CSR row pointer by user, int64 [users + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.user_degrees)])


def _keys(users: Int32s, items: Int32s) -> Int64s:
    return (users.astype(np.int64) << 32) | items


def _contains(sorted_keys: Int64s, keys: Int64s) -> npt.NDArray[np.bool_]:
    """Mask of the `keys` that are among `sorted_keys`."""
    at = np.searchsorted(sorted_keys, keys)
    at[at == len(sorted_keys)] = 0
    found: npt.NDArray[np.bool_] = sorted_keys[at] == keys
    return found


@dataclass(frozen=True)
class Adjacency:
    """D_u^-1/2 R D_i^-1/2 by user and by item, on a device.

    by_user: sparse CSR [users, items], by_item: its transpose; float32 with int32 indices.
    user_degrees, item_degrees: float32 [users], [items].
    """

    by_user: Tensor
    by_item: Tensor
    user_degrees: Tensor
    item_degrees: Tensor

    @cached_property
    def edge_index(self) -> Tensor:
        """Both directions as PyG's int64 [2, 2 * edges]; nodes are the users, then the items."""
        starts, items = self.by_user.crow_indices(), self.by_user.col_indices()
        users = torch.arange(len(starts) - 1, device=items.device).repeat_interleave(starts.diff())
        edges = torch.stack([users, items + self.by_user.shape[0]])
        return torch.cat([edges, edges.flip(0)], 1)

    @classmethod
    def of(cls, graph: InteractionGraph, device: torch.device) -> Self:
        """Build both directions from the graph's edges; a node without edges gets an empty row."""
        users, items = graph.users, graph.items
        user_degrees = graph.user_degrees.astype(np.float32)
        item_degrees = graph.item_degrees.astype(np.float32)
        values = 1 / np.sqrt(user_degrees[users] * item_degrees[items])
        return cls(
            *both_ways(graph, values, device),
            torch.from_numpy(user_degrees).to(device),
            torch.from_numpy(item_degrees).to(device),
        )


def both_ways(
    graph: InteractionGraph, values: Float32s, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Sparse CSR [users, items] of `values` [edges], and its transpose; int32 indices."""
    users, items = graph.users, graph.items
    by_item = np.argsort(items, kind="stable")
    return (
        _csr(users, items, values, (graph.n_users, graph.n_items), device),
        _csr(
            items[by_item], users[by_item], values[by_item], (graph.n_items, graph.n_users), device
        ),
    )


def _csr(
    rows: Int32s, columns: Int32s, values: Float32s, shape: tuple[int, int], device: torch.device
) -> Tensor:
    """Sparse CSR tensor from entries sorted by row."""
    starts = np.concatenate(
        [np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=shape[0]))]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts.astype(np.int32)),
            torch.from_numpy(columns),
            torch.from_numpy(values.astype(np.float32)),
            shape,
            device=device,
            check_invariants=False,
        )
