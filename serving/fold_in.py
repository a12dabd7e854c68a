"""From users' edges to their lists: fold in, rank, explain. The one way by which a list is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from serving.store import Recommendations
from serving.topk import topk
from trainer.snapshots import Snapshot

Edges = dict[str, int]  # item -> epoch milliseconds of the edge


class Recommender:
    """A snapshot on its device, and the popular list for users whom it cannot place."""

    def __init__(self, snapshot: Snapshot, device: torch.device, k: int) -> None:
        self.version = snapshot.manifest.version
        self.manifest = snapshot.manifest
        self.item_ids: list[str] = snapshot.item_ids.to_pylist()
        self._embeddings = snapshot.embeddings.to(device)
        self._device = device
        self._k = k
        users = snapshot.user_ids.to_pylist()
        self._users = {user: number for number, user in enumerate(users)}
        self._items = {item: number for number, item in enumerate(self.item_ids)}

    def lists(
        self,
        users: Sequence[tuple[str, Edges]],
        source: Literal["model", "live"],
        popular: Recommendations,
    ) -> list[tuple[str, Recommendations]]:
        """The list of each user from its edges; popular items where no edge is to a known item."""
        own = [[self._items[i] for i in edges if i in self._items] for _, edges in users]
        numbers = self._tensor([self._users.get(user, -1) for user, _ in users])
        starts = self._tensor(np.cumsum([0, *map(len, own)]).tolist())
        items = self._tensor([item for each in own for item in each])
        vectors = self._embeddings.user_vectors(numbers, starts, items)
        scores, best = topk(vectors, self._embeddings.outgoing, starts, items, self._k)
        now = int(time.time() * 1000)
        made = []
        for row, (user, edges) in enumerate(users):
            event_at = max(edges.values(), default=0)
            if own[row]:
                left = scores[row].isfinite()
                value = self._list(
                    self._tensor(own[row]),
                    scores[row][left],
                    best[row][left],
                    source,
                    event_at,
                    now,
                )
            else:
                value = without(popular, edges, self._k, event_at, now)
            made.append((user, value))
        return made

    def forget(self, user: str) -> None:
        """Drop what the model has learned of a user beyond its edges."""
        self._users.pop(user, None)

    @torch.no_grad()
    def neighbors(self, begin: int, end: int) -> list[tuple[str, Recommendations]]:
        """Items most similar to the items begin..end, by the cosine of what they are scored by."""
        vectors = functional.normalize(self._embeddings.outgoing[:, :-2], dim=1)  # without the bias
        block = torch.arange(begin, min(end, len(vectors)), device=self._device)
        starts = torch.arange(len(block) + 1, device=self._device)
        scores, best = topk(vectors[block], vectors, starts, block, self._k)
        now = int(time.time() * 1000)
        return [
            (
                self.item_ids[number],
                Recommendations(
                    [self.item_ids[i] for i in best[row][scores[row].isfinite()].tolist()],
                    _rounded(scores[row][scores[row].isfinite()]),
                    [],
                    self.version,
                    "model",
                    self.manifest.trained_at,
                    now,
                ),
            )
            for row, number in enumerate(block.tolist())
        ]

    def _list(
        self,
        own: Tensor,
        scores: Tensor,
        best: Tensor,
        source: Literal["model", "live"],
        event_at: int,
        now: int,
    ) -> Recommendations:
        reasons = own[self._embeddings.because(own, best)]
        return Recommendations(
            [self.item_ids[i] for i in best.tolist()],
            _rounded(scores),
            [self.item_ids[i] for i in reasons.tolist()],
            self.version,
            source,
            event_at,
            now,
        )

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)


def without(
    popular: Recommendations, edges: Edges, k: int, event_at: int, now: int
) -> Recommendations:
    """The k first popular items that the user has no edge to."""
    kept = [n for n, item in enumerate(popular.items) if item not in edges][:k]
    return Recommendations(
        [popular.items[n] for n in kept],
        [popular.scores[n] for n in kept],
        [],
        popular.model,
        "popular",
        event_at,
        now,
    )


def _rounded(scores: Tensor) -> list[float]:
    return [round(score, 5) for score in scores.tolist()]
