"""The edges of a block of users, as the scores of these users are made of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.graph.interactions import InteractionGraph

TINY = 1e-18  # keeps a division by a sum that is zero finite; strengths are larger (weights.py)


class Own(NamedTuple):
    """The edges of a block of users.

    starts: int64 [block + 1], where each user's begin; items: int64 [edges];
    strengths: float32 [edges]; ages: int64 [edges], how many newer edges the user has, or None
    where order says nothing.
    """

    starts: Tensor
    items: Tensor
    strengths: Tensor
    ages: Tensor | None = None

    def to(self, device: torch.device) -> Own:
        """The same on another device."""
        ages = None if self.ages is None else self.ages.to(device)
        return Own(self.starts.to(device), self.items.to(device), self.strengths.to(device), ages)

    def slice(self, begin: int, end: int) -> Own:
        """The edges of the users begin..end of the block."""
        starts = self.starts[begin : end + 1]
        edges = slice(int(starts[0]), int(starts[-1]))
        ages = None if self.ages is None else self.ages[edges]
        return Own(starts - starts[0], self.items[edges], self.strengths[edges], ages)

    def only(self, kept: Tensor) -> Own:
        """The same users with the edges where `kept` (bool [edges]) is true."""
        before = functional.pad(kept.cumsum(0), (1, 0))
        ages = None if self.ages is None else self.ages[kept]
        return Own(before[self.starts], self.items[kept], self.strengths[kept], ages)

    def of(self, users: Tensor) -> Own:
        """The edges of some of the users, bool [block]."""
        mine = self.only(users[self.rows()])
        ends = mine.starts[1:][users]
        return mine._replace(starts=functional.pad(ends, (1, 0)))

    def recent(self, recency: float) -> Own:
        """The same with strengths times (1 + age)^-recency, scaled so that users' sums stay."""
        if self.ages is None or not recency:
            return self
        faded = self._replace(strengths=self.strengths * (1.0 + self.ages) ** -recency)
        factors = self.sums() / faded.sums().clamp(min=TINY)
        return faded._replace(strengths=faded.strengths * factors[faded.rows()], ages=None)

    def sums(self) -> Tensor:
        """Sum of each user's strengths, [block]."""
        summed = functional.embedding_bag(
            torch.arange(len(self.items), device=self.items.device),
            self.strengths[:, None],
            self.starts[:-1],
            mode="sum",
        )
        return summed[:, 0]

    def rows(self) -> Tensor:
        """The row in the block of each edge, int64 [edges]."""
        users = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return users.repeat_interleave(self.starts.diff())

    def shares(self) -> Tensor:
        """Each edge's share of its user's strengths, [edges]."""
        return self.strengths / self.sums().clamp(min=TINY)[self.rows()]


def own(graph: InteractionGraph, users: Tensor) -> Own:
    """The edges in `graph` of users int64 [block]."""
    return Own(*(torch.from_numpy(column) for column in graph.own(users.numpy())))
