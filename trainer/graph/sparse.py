"""The graph as sparse matrices of users and items, by user and by item, normalised by degrees."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from trainer.graph.arrays import Float32s
from trainer.graph.interactions import InteractionGraph
from trainer.ranks import Ranks


class Incidence:
    """Which user has which item, on a device, by user and by item; int32 indices.

    rows: int64 [edges], users of the edges, which are in the graph's order.
    """

    def __init__(self, graph: InteractionGraph, device: torch.device) -> None:
        self.shape = (graph.n_users, graph.n_items)
        order = np.argsort(graph.items, kind="stable")
        own = np.bincount(graph.items, minlength=graph.n_items)  # edges, of this rank alone
        by_item = np.concatenate([np.zeros(1, np.int64), np.cumsum(own)])
        self.rows = torch.from_numpy(graph.users.astype(np.int64)).to(device)
        self._order = torch.from_numpy(order).to(device)
        self._starts = torch.from_numpy(graph.starts.astype(np.int32)).to(device)
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

    kept: float [edges], 1 for the edges that are in it, 0 for those that were thinned out. ranks:
    who has the other users.
    """

    incidence: Incidence
    kept: Tensor
    values: Tensor
    by_user: Tensor
    by_item: Tensor
    ranks: Ranks

    @classmethod
    def of(cls, graph: InteractionGraph, device: torch.device) -> Self:
        """Both directions."""
        values = torch.from_numpy(normalised(graph)).to(device)
        incidence, ones = Incidence(graph, device), torch.ones_like(values)
        return cls(incidence, ones, values, *incidence.both(values), graph.ranks)

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
