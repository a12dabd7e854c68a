"""The user-item graph as arrays: grows from rows of the edge store, never renumbers a node.

An edge is the latest state of a (user, item) pair in the order of the rows: its weight comes from
the pair's events (weights.py), and a row of type `remove` takes it out. A row of type `forget`
takes out a user: its edges, and its id, of which the node's number is left.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from consumer.edge.traces import matching, split
from consumer.event.json import LARGEST
from trainer.graph.weights import Float32s, Int64s, Pairs, Weighing

REMOVE = "remove"
Int32s = npt.NDArray[np.int32]


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

    users, items: int32 [edges]; weights: float32 [edges], as `weighing` makes them;
    timestamps: int64 [edges], epoch milliseconds of the last event, none in the future; places:
    int64 [edges], where that event was among all events read.
    """

    user_ids: Ids = field(default_factory=Ids)
    item_ids: Ids = field(default_factory=Ids)
    users: Int32s = field(default_factory=_int32s)
    items: Int32s = field(default_factory=_int32s)
    weights: Float32s = field(default_factory=lambda: np.empty(0, np.float32))
    timestamps: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    places: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    weighing: Weighing = field(default_factory=Weighing)
    _read: int = field(default=0, repr=False)  # events so far

    def __post_init__(self) -> None:
        if len(self.places) != len(self):
            self.places = np.arange(len(self))
            self._read = len(self)

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

    @property
    def keys(self) -> Int64s:
        """One number for each edge, ascending; int64 [edges]."""
        return keys_of(self.users, self.items)

    def extend(self, rows: pa.Table) -> None:
        """Add rows of the edge store's schema, in their order, to the graph in place."""
        rows, digests = split(rows)
        self.forget(matching(self.user_ids.values, digests))
        if not len(rows):
            return
        interactions = np.clip(rows["interaction"].to_numpy(), -LARGEST, LARGEST)
        new = Pairs(
            keys_of(self.user_ids.grow(rows["user_id"]), self.item_ids.grow(rows["item_id"])),
            interactions.astype(np.float32) * self.weighing.factors(rows["type"]),
            np.minimum(_milliseconds(rows["timestamp"]), _taken_at(rows)),
            self._read + np.arange(len(rows)),
        )
        self._read += len(rows)
        removals = pc.equal(rows["type"], REMOVE).combine_chunks().to_numpy(zero_copy_only=False)
        old = Pairs(self.keys, self.weights, self.timestamps, self.places)
        touched = contained(np.unique(new.keys), old.keys)
        events = old.where(touched).then(new)
        removed = np.concatenate([np.zeros(touched.sum(), np.bool_), removals])
        merged = self.weighing.merge(events, removed)

        grown = old.where(~touched).then(merged)
        order = np.argsort(grown.keys, kind="stable")
        keys = grown.keys[order]
        self._drop_derived()
        self.users = (keys >> 32).astype(np.int32)
        self.items = (keys & 0xFFFFFFFF).astype(np.int32)
        self.weights = grown.weights[order]
        self.timestamps = grown.timestamps[order]
        self.places = grown.places[order]

    @cached_property
    def strengths(self) -> Float32s:
        """What the filters take an edge for, float32 [edges].

        The weight, decayed to the graph's newest event; 0 where that is negative: a filter spreads
        what users liked, and such an edge only says what not to recommend again.
        """
        newest = int(self.timestamps.max(initial=0))
        return self.weighing.strengths(self.weights, self.timestamps, newest)

    def forget(self, users: list[int]) -> None:
        """Take out these user numbers' edges and ids; an id that comes again is a new user."""
        if users:
            self.user_ids.blank(users)
            self._drop_derived()
            kept = ~np.isin(self.users, users)
            self.users, self.items = self.users[kept], self.items[kept]
            self.weights, self.timestamps = self.weights[kept], self.timestamps[kept]
            self.places = self.places[kept]

    def dampened(self, on: bool) -> InteractionGraph:
        """The same edges with strengths that are dampened or are not (see weights.py)."""
        if self.weighing.dampened == on:
            return self
        return replace(self, weighing=replace(self.weighing, dampened=on))

    def dampen(self, on: bool) -> None:
        """Make it so in place."""
        if self.weighing.dampened != on:
            self.weighing = replace(self.weighing, dampened=on)
            self._drop_derived()

    def _drop_derived(self) -> None:
        for name in ("strengths", "ages"):
            self.__dict__.pop(name, None)

    def expire(self, oldest: int) -> Int32s:
        """Take out the edges whose last event is older than `oldest`, epoch milliseconds.

        A user without an edge left is taken out as by `forget`.

        Returns:
            The numbers of the users who lost an edge, int32.
        """
        kept = self.timestamps >= oldest
        touched: Int32s = np.unique(self.users[~kept])
        if len(touched):
            self._drop_derived()
            self.users, self.items = self.users[kept], self.items[kept]
            self.weights, self.timestamps = self.weights[kept], self.timestamps[kept]
            self.places = self.places[kept]
            self.user_ids.blank(touched[~np.isin(touched, self.users)].tolist())
        return touched

    def subset(self, mask: npt.NDArray[np.bool_]) -> InteractionGraph:
        """The same nodes with the edges where `mask` (bool [edges]) is true."""
        return InteractionGraph(
            self.user_ids,
            self.item_ids,
            self.users[mask],
            self.items[mask],
            self.weights[mask],
            self.timestamps[mask],
            self.places[mask],
            self.weighing,
            self._read,
        )

    def every(self, nth: int) -> InteractionGraph:
        """Every nth user, renumbered, with its edges; all items."""
        mask = self.users % nth == 0
        made = self.subset(mask)
        made.user_ids = Ids(self.user_ids.values.take(np.arange(0, self.n_users, nth)))
        made.users = made.users // nth
        return made

    def newest(
        self, share: float, novelty: npt.NDArray[np.int8] | None = None, liked: bool = False
    ) -> npt.NDArray[np.bool_]:
        """Mask [edges] of each user's newest edges: `share` of them, at least one of five or more.

        Each user's own newest, not the newest of all: where users come in sessions the latter
        belong to users of whom nothing older is left to recommend from. Of users whose edges all
        have one time a hash of the two ends decides, so that data without times is held out at
        random, and mostly the same edges again when others have come.

        Args:
            novelty: of each edge, [edges]; it comes before the time, which a repeated event moves.
            liked: of edges of some strength alone.
        """
        novelty = np.zeros(len(self), np.int8) if novelty is None else novelty
        if liked and not self.strengths.all():
            mask = self.strengths > 0
            mask[mask] = self.subset(mask).newest(share, novelty[mask])
            return mask
        chance = (_hashed(self.keys) >> np.uint64(1)).astype(np.int64)
        chance = np.where(self.timed[self.users], self.places, chance)
        by_age = np.lexsort((chance, self.timestamps, novelty, self.users))
        start = self.row_starts()
        counts = np.diff(start)
        rank = np.arange(len(self)) - start[self.users]  # users are sorted, so by_age keeps rows
        taken = np.maximum((counts * share).astype(np.int64), counts >= 5)
        mask = np.zeros(len(self), np.bool_)
        mask[by_age] = rank >= (counts - taken)[self.users]
        return mask

    def by_time(self) -> Int64s:
        """Numbers of the edges in each user's order, users one after another; int64 [edges].

        A user's edges are in the order of their timestamps, and those of equal ones in the order in
        which they were read.
        """
        return np.lexsort((self.places, self.timestamps, self.users))

    @cached_property
    def ages(self) -> Int64s:
        """How many newer edges the user of each edge has, int64 [edges].

        0 for all edges of a user whose edges have one and the same time: their order says nothing.
        """
        rank = np.empty(len(self), np.int64)
        rank[self.by_time()] = np.arange(len(self))
        ages = self.row_starts()[1:][self.users] - 1 - rank
        return np.where(self.timed[self.users], ages, 0)

    @property
    def timed(self) -> npt.NDArray[np.bool_]:
        """Whether a user's edges have differing times, bool [users]."""
        newest = np.full(self.n_users, np.iinfo(np.int64).min)
        oldest = np.full(self.n_users, np.iinfo(np.int64).max)
        np.maximum.at(newest, self.users, self.timestamps)
        np.minimum.at(oldest, self.users, self.timestamps)
        return newest > oldest

    def own(self, users: Int64s) -> tuple[Int64s, Int64s, Float32s, Int64s]:
        """Edges of users int64 [block].

        Returns:
            starts int64 [block + 1], items int64 [edges], strengths float32 [edges], ages int64
            [edges].
        """
        rows = self.row_starts()
        counts = rows[users + 1] - rows[users]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        at = np.arange(starts[-1]) + np.repeat(rows[users] - starts[:-1], counts)
        return starts, self.items[at].astype(np.int64), self.strengths[at], self.ages[at]

    @property
    def user_degrees(self) -> Int64s:
        """Edges of each user, int64 [users]."""
        return np.bincount(self.users, minlength=self.n_users)

    @property
    def item_degrees(self) -> Int64s:
        """Edges of each item, int64 [items]."""
        return np.bincount(self.items, minlength=self.n_items)

    @property
    def user_strengths(self) -> Float32s:
        """Sum of each user's strengths, float32 [users]."""
        return np.bincount(self.users, self.strengths, self.n_users).astype(np.float32)

    @property
    def item_strengths(self) -> Float32s:
        """Sum of each item's strengths, float32 [items]."""
        return np.bincount(self.items, self.strengths, self.n_items).astype(np.float32)

    def row_starts(self) -> Int64s:
        """CSR row pointer by user, int64 [users + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.user_degrees)])


def _taken_at(rows: pa.Table) -> Int64s | int:
    """When the rows were taken, epoch milliseconds; no event has happened later, whatever the clock
    of a client said, which would age all other events.
    """
    now = int(time.time() * 1000)
    if "ingested_at" not in rows.schema.names:
        return now
    taken = rows["ingested_at"].cast(pa.int64()).fill_null(now * 1000)
    return np.minimum(_milliseconds(taken), now)


def _milliseconds(times: pa.ChunkedArray) -> Int64s:
    made: Int64s = times.cast(pa.int64()).to_numpy() // 1000
    return made


def keys_of(users: Int32s, items: Int32s) -> Int64s:
    """One number for each edge, by which they sort by user, then item; int64 [edges]."""
    return (users.astype(np.int64) << 32) | items


def _hashed(keys: Int64s) -> npt.NDArray[np.uint64]:
    """The mixing steps of splitmix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    made = keys.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        made = (made ^ (made >> np.uint64(shift))) * np.uint64(factor)
    mixed: npt.NDArray[np.uint64] = made ^ (made >> np.uint64(31))
    return mixed


def contained(sorted_keys: Int64s, keys: Int64s) -> npt.NDArray[np.bool_]:
    """Mask of the `keys` that are among `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), np.bool_)
    at = np.searchsorted(sorted_keys, keys)
    at[at == len(sorted_keys)] = 0
    found: npt.NDArray[np.bool_] = sorted_keys[at] == keys
    return found


class Incidence:
    """Which user has which item, on a device, by user and by item; int32 indices.

    rows: int64 [edges], users of the edges, which are in the graph's order.
    """

    def __init__(self, graph: InteractionGraph, device: torch.device) -> None:
        self.shape = (graph.n_users, graph.n_items)
        order = np.argsort(graph.items, kind="stable")
        by_item = np.concatenate([np.zeros(1, np.int64), np.cumsum(graph.item_degrees)])
        self.rows = torch.from_numpy(graph.users.astype(np.int64)).to(device)
        self._order = torch.from_numpy(order).to(device)
        self._starts = torch.from_numpy(graph.row_starts().astype(np.int32)).to(device)
        self._items = torch.from_numpy(graph.items).to(device)
        self._item_starts = torch.from_numpy(by_item.astype(np.int32)).to(device)
        self._users = torch.from_numpy(graph.users[order]).to(device)

    def both(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sparse CSR [users, items] of `values` float [edges], and its transpose."""
        return (
            _csr(self._starts, self._items, values, self.shape),
            _csr(self._item_starts, self._users, values[self._order], self.shape[::-1]),
        )

    def sums(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of `values` float [edges] over the edges of each user and of each item."""
        users, items = (values.new_zeros(n) for n in self.shape)
        return users.index_add_(0, self.rows, values), items.index_add_(0, self._items, values)

    @property
    def edge_index(self) -> Tensor:
        """Both directions as PyG's int64 [2, 2 * edges]; nodes are the users, then the items."""
        edges = torch.stack([self.rows, self._items + self.shape[0]])
        return torch.cat([edges, edges.flip(0)], 1)


@dataclass(frozen=True)
class Adjacency:
    """D_u^-1/2 R D_i^-1/2 by user and by item: sparse CSR [users, items] and its transpose.

    kept: float [edges], 1 for the edges that are in it, 0 for those that were thinned out.
    """

    incidence: Incidence
    kept: Tensor
    values: Tensor
    by_user: Tensor
    by_item: Tensor

    @classmethod
    def of(
        cls,
        graph: InteractionGraph,
        device: torch.device,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> Self:
        """Both directions; with `mask` only those edges, normalised as part of the whole graph."""
        values = torch.from_numpy(normalised(graph)).to(device)
        if mask is not None and not mask.all():
            graph, values = graph.subset(mask), values[torch.from_numpy(mask).to(device)]
        incidence = Incidence(graph, device)
        return cls(incidence, torch.ones_like(values), values, *incidence.both(values))

    @cached_property
    def unweighted(self) -> tuple[Tensor, Tensor]:
        """Both ways with 1 for each edge."""
        return self.incidence.both(self.kept)

    def degrees_with_loops(self) -> tuple[Tensor, Tensor]:
        """Edges of each user and of each item, and 1 for itself (GCNConv); float32."""
        users, items = self.incidence.sums(self.kept)
        return users + 1, items + 1

    def thinned(self, kept: Tensor) -> Self:
        """The same with only the edges where `kept` (bool [edges]) is true."""
        values = self.values * kept
        by_user, by_item = self.incidence.both(values)
        return replace(self, kept=kept.float(), values=values, by_user=by_user, by_item=by_item)


def both_ways(
    graph: InteractionGraph, values: Float32s, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Sparse CSR [users, items] of `values` [edges], and its transpose; int32 indices."""
    return Incidence(graph, device).both(torch.from_numpy(values).to(device))


def normalised(graph: InteractionGraph, exponent: float = 0.5) -> Float32s:
    """The edges' values in D_u^-exponent R D_i^-exponent, R their strengths; float32 [edges]."""
    by_user = power(graph.user_strengths, -exponent)[graph.users]
    return graph.strengths * by_user * power(graph.item_strengths, -exponent)[graph.items]


def power(degrees: Float32s, exponent: float) -> Float32s:
    """degrees ** exponent, but 0 where the degree is 0; float32."""
    made = np.zeros(len(degrees), np.float32)
    some = degrees > 0
    made[some] = degrees[some].astype(np.float64) ** exponent
    return made


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
