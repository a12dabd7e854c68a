"""From users' edges to their lists: fold in, rank, explain. The one way by which a list is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from serving.store import Recommendations
from serving.topk import topk
from serving.user_edges import Edges
from trainer.embeddings import Own
from trainer.snapshots import Snapshot


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
        own = [
            [(self._items[i], e.weight) for i, e in edges.items() if i in self._items]
            for _, edges in users
        ]
        block = Own(
            self._tensor(np.cumsum([0, *map(len, own)]).tolist()),
            self._tensor([item for each in own for item, _ in each]),
            torch.tensor([s for each in own for _, s in each], device=self._device),
        )
        numbers = [self._users.get(user, -1) for user, _ in users]
        scored = self._embeddings.score(self._tensor(numbers), block)
        scores, best = topk(scored, block.starts, block.items, self._k)
        now = int(time.time() * 1000)
        made = []
        for row, (user, edges) in enumerate(users):
            event_at = max((edge.timestamp for edge in edges.values()), default=0)
            if any(strength > 0 for _, strength in own[row]):
                left = scores[row].isfinite()
                items = best[row][left]
                begin, end = block.starts[row], block.starts[row + 1]
                alone = Own(
                    block.starts.new_tensor([0, end - begin]),
                    block.items[begin:end],
                    block.strengths[begin:end],
                )
                shares = self._embeddings.contributions(numbers[row], alone, items)
                value = Recommendations(
                    [self.item_ids[i] for i in items.tolist()],
                    _rounded(scores[row][left]),
                    [self.item_ids[i] for i in alone.items[shares.argmax(0)].tolist()],
                    self.version,
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

    def neighbors(self, begin: int, end: int) -> list[tuple[str, Recommendations]]:
        """Items most similar to the items begin..end: what one who has only the item would get."""
        block = torch.arange(begin, min(end, len(self.item_ids)), device=self._device)
        starts = torch.arange(len(block) + 1, device=self._device)
        own = Own(starts, block, torch.ones(len(block), device=self._device))
        scored = self._embeddings.score(torch.full_like(block, -1), own)
        scores, best = topk(scored, starts, block, self._k)
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
