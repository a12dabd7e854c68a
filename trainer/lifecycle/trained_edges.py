"""Which edges a snapshot was trained on, so that the next training knows what is new to it.

Neither clocks nor offsets can tell: a user may repeat an event or set its time, an edge may go and
come again. So a snapshot keeps the pairs themselves, five bytes an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from trainer.graph.arrays import Bools, Int8s, Int64s
from trainer.graph.holdout import KNOWN, PUT_ASIDE, UNSEEN
from trainer.graph.interactions import InteractionGraph
from trainer.graph.keys import contained, keys_of


@dataclass(frozen=True)
class Trained:
    """The edges of each user, one user's behind the other's, in the snapshot's numbering.

    starts: int64 [users + 1]; items: int32 [edges]; held_out: bool [edges], true for an edge that
    the published model has seen, but not what the next training goes on from.
    """

    starts: Tensor
    items: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, graph: InteractionGraph, held_out: Bools) -> Trained:
        """All edges of the graph; `held_out` is bool [edges]."""
        columns = graph.starts, graph.items, held_out
        return cls(*(torch.from_numpy(column) for column in columns))

    def tensors(self) -> dict[str, Tensor]:
        """By name, as they are stored."""
        return {"starts": self.starts, "items": self.items, "held_out": self.held_out}

    def without(self, users: list[int]) -> Trained:
        """The same without the edges of these users."""
        counts = self.starts.diff()
        gone = torch.zeros(len(counts), dtype=torch.bool)
        gone[users] = True
        kept = ~gone.repeat_interleave(counts)
        counts[gone] = 0
        return Trained(_starts(counts), self.items[kept], self.held_out[kept])

    def of_users(self, users: Tensor) -> Trained:
        """The edges of these users alone, int64 [n] ascending, renumbered."""
        firsts = self.starts[users]
        counts = self.starts[users + 1] - firsts
        starts = _starts(counts)
        kept = (firsts - starts[:-1]).repeat_interleave(counts)  # how far each edge moves
        kept += torch.arange(len(kept))
        return Trained(starts, self.items[kept], self.held_out[kept])

    def novelty(self, users: pa.Array, items: pa.Array, graph: InteractionGraph) -> Int8s:
        """How new each edge of the graph is to the snapshot: KNOWN, PUT_ASIDE or UNSEEN.

        Args:
            users, items: the ids of the snapshot's rows.

        Returns:
            int8 [edges of the graph].
        """
        user, counts = places(users, graph.user_ids.values), self.starts.diff().numpy()
        known = user >= 0  # a rank knows its own users: of the others' edges little is to be held
        edges = np.repeat(known, counts)
        user = np.repeat(user[known], counts[known])
        item = places(items, graph.item_ids.values)[self.items.numpy()[edges]]
        there = item >= 0
        keys = keys_of(user[there].astype(np.int32), item[there].astype(np.int32))
        was_held_out = self.held_out.numpy()[edges][there]
        own, made = graph.keys, np.full(len(graph), UNSEEN, np.int8)
        made[contained(np.sort(keys), own)] = KNOWN
        made[contained(np.sort(keys[was_held_out]), own)] = PUT_ASIDE
        return made


def joined(parts: Sequence[Trained]) -> Trained:
    """The edges of several groups of users, one group behind the other."""
    if len(parts) == 1:
        return parts[0]
    starts = _starts(torch.cat([part.starts.diff() for part in parts]))
    items = torch.cat([part.items for part in parts])
    return Trained(starts, items, torch.cat([part.held_out for part in parts]))


def _starts(counts: Tensor) -> Tensor:
    """Where the edges of each user begin, and where all end, int64 [users + 1]."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def places(ids: pa.Array, among: pa.Array) -> Int64s:
    """Position of each id, int64, -1 for one that is not there."""
    found: Int64s = pc.fill_null(pc.index_in(ids, value_set=among), -1).to_numpy().astype(np.int64)
    return found
