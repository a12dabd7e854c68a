"""Every user's edges in their order, as the learned part that predicts next items reads them.

Users come in the order of the hashes of their ids: so the edges of several ranks, one rank after
another, have the order that they have in one process, and what is drawn is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from trainer.embedding.next_item_fold_in import FURTHER
from trainer.graph.interactions import InteractionGraph
from trainer.ranks import Ranks

WINDOW = 50  # items of a state that are looked at in a training
AHEAD = 10  # next items that are looked at; what comes after them would count less than 1/1,000


@dataclass(frozen=True)
class Sequences:
    """The edges of all users with edges in their order, one user after another.

    items: int32 [edges], numbers of the graph; users: int32 [edges], 0, 1, ... in the order of the
    users with edges, who are meant by [users]; strengths: float32 [edges]; starts: int64 [users +
    1], where each user's edges begin; fading: float32 [users], the recency, and 0 for a user whose
    edges all have the same time.

    Edges of strength 0 have a place, as they have in the ages that users are scored with, but
    nobody likes their items. The next fields leave them out. liked: int64 [liked], places; ends:
    int64 [users], the number among `liked` of each user's last one, -1 where there is none; later:
    int64 [predicted], numbers of those in `liked` that are not the first of their users;
    log_degrees: float32 [items], on all ranks. ranks: who has the other users.
    """

    items: Tensor
    users: Tensor
    strengths: Tensor
    starts: Tensor
    fading: Tensor
    liked: Tensor
    ends: Tensor
    later: Tensor
    log_degrees: Tensor
    ranks: Ranks

    @classmethod
    def of(cls, graph: InteractionGraph, recency: float) -> Self:
        """The sequences of a graph."""
        _, users_edges = graph.places_of(graph.user_ids.by_hash.astype(np.int64))
        order = graph.by_time()[users_edges]
        users, items, strengths = (of[order] for of in (graph.users, graph.items, graph.strengths))
        first = np.concatenate([[True], users[1:] != users[:-1]])[: len(users)]
        starts, numbers = np.flatnonzero(first), np.cumsum(first, dtype=np.int32) - 1
        fading = np.where(graph.timed[users[starts]], recency, 0.0).astype(np.float32)
        liked = np.flatnonzero(strengths > 0)
        who = numbers[liked]
        ends = np.full(len(starts), -1)
        ends[who] = np.arange(len(liked))  # the last one stays
        degrees = graph.ranks.sum(np.bincount(items[liked], minlength=graph.n_items)).clip(min=1)
        return cls(
            torch.from_numpy(items),
            torch.from_numpy(numbers),
            torch.from_numpy(strengths),
            torch.from_numpy(np.append(starts, len(users))),
            torch.from_numpy(fading),
            torch.from_numpy(liked),
            torch.from_numpy(ends),
            torch.from_numpy(np.flatnonzero(who[1:] == who[:-1]) + 1),
            torch.from_numpy(np.log(degrees).astype(np.float32)),
            graph.ranks,
        )

    def wanted(self, liked: Tensor, further: Tensor | int = 0) -> Tensor:
        """The items of edges, or of those of the same users that come `further` liked edges later.

        Args:
            liked: int64 [n], numbers in `liked`.

        Returns:
            int32 [n]; a user's last item where there is none so far.
        """
        last = self.ends[self.users[self.liked[liked]]]
        return self.items[self.liked[torch.minimum(liked + further, last)]]

    def before(self, liked: Tensor) -> tuple[Tensor, Tensor]:
        """The items of the states that come before edges, and their weights.

        Args:
            liked: int64 [n], numbers in `liked`.

        Returns:
            int32 [n, WINDOW], the newest first, and float32 [n, WINDOW], 0 where there is none.
        """
        edges, ages = self.liked[liked], torch.arange(WINDOW)
        places = edges[:, None] - 1 - ages
        users = self.users[edges]
        inside = places >= self.starts[users, None]
        places = torch.where(inside, places, 0)
        faded = (1.0 + ages) ** -self.fading[users, None]
        return self.items[places], self.strengths[places] * faded * inside

    def after(self, liked: Tensor) -> tuple[Tensor, Tensor]:
        """The liked items that come after edges, and the chances that they are wanted.

        Args:
            liked: int64 [n], numbers in `liked`.

        Returns:
            int32 [n, AHEAD], the next one first, and float32 [n, AHEAD], 0 where there is none.
        """
        steps = 1 + torch.arange(AHEAD)
        last = self.ends[self.users[self.liked[liked]]]
        inside = liked[:, None] + steps <= last[:, None]
        chances = (1 - FURTHER) * FURTHER ** (steps - 1.0)
        return self.wanted(liked[:, None], steps), chances * inside
