"""Users' edges -> the values of their lists, on several threads; the one way to make a list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from serving.edges.user_edges import UserEdges
from serving.items.served_model import ROOM, ServedModel, UserBlock
from serving.lists.encoding import Lists, encode, quoted
from serving.lists.popular_list import PopularList
from serving.lists.ranking import Ranked, rank, unliked_items
from serving.lists.topk import FirstPass
from trainer.embedding.edges import Own

SCORES = 16_000_000  # in memory at a time
LARGEST_BLOCK = 128  # lists in a block,
PART = 64  # and in what a thread makes of the block at a time
FEWEST_TO_SHARE = 16  # lists from which they are made on several threads

ListSource = Literal["model", "live"]


class Encoded(NamedTuple):
    """Ids of users or items, and the value of each one's list."""

    ids: Sequence[str]
    values: list[bytes]


class Recommender:
    """Lists made from a model."""

    def __init__(self, model: ServedModel, k: int, threads: int = 1) -> None:
        """Args:
        k: items in a list, at most.
        threads: on which lists are made side by side, each on one core: most of the work
            is to gather rows, which torch itself does on one.
        """
        self.model = model
        self._k = k
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._threads = threads
        first = FirstPass.of(model.trained, k)
        self._first = first and first.with_room(ROOM)
        self._unliked = unliked_items(model.trained)
        self._quoted = quoted(pa.array(model.item_ids, pa.string()))

    @property
    def block_size(self) -> int:
        """Users or items whose lists are made at a time; the same in all processes."""
        return max(1, min(LARGEST_BLOCK, SCORES // max(1, self.model.trained.n_items)))

    def renew(self, numbers: list[int]) -> None:
        """The model has taken up new items, or new rows of items, of these numbers."""
        new = self.model.item_ids[len(self._quoted) :]
        self._quoted = pa.concat_arrays([self._quoted, quoted(pa.array(new, pa.string()))])
        if self._first and numbers:
            rows = self.model.embeddings.outgoing[numbers]
            self._first.put(numbers, self.model.trained, rows)

    def lists(
        self,
        users: Sequence[str],
        edges: UserEdges,
        sources: Sequence[ListSource],
        popular: PopularList,
    ) -> Iterator[Encoded]:
        """The users' lists, in their order, some at a time; popular items for a user whose edges
        lead to no item.

        The edges are read in the call; the lists are then made on the threads, also while no one
        asks for them.

        Args:
            sources: what each list is to say of why it was written.
        """
        block, now = self.model.block(users, edges), int(time.time() * 1000)

        def encoded(part: slice, lists: Lists) -> Encoded:
            mine = users[part]
            values = encode(lists, self._quoted, self.model.version, sources[part], now)
            empty = np.flatnonzero(lists.counts == 0).tolist()
            if empty:
                owned = [edges.items(mine[row]) for row in empty]
                instead = popular.without(owned, self._k, lists.event_at[empty], now)
                for row, value in zip(empty, instead, strict=True):
                    values[row] = value
            return Encoded(mine, values)

        return (encoded(*each) for each in self.rank(block))

    def rank(self, block: UserBlock, explained: bool = True) -> Iterator[tuple[slice, Lists]]:
        """Which users of the block, and their lists, some after others; as `lists`.

        A list has no item where none of the user's edges is of any use.

        Args:
            explained: whether `because` is needed, which takes as long as all the rest.
        """
        own = block.own.only(block.own.items >= 0).to(self.model.device)
        useless = (own.sums() <= 0).cpu().numpy()

        def lists(part: slice, ranked: Ranked) -> Lists:
            counts = np.where(useless[part], 0, ranked.counts)
            return Lists(*ranked._replace(counts=counts), block.event_at[part])

        ranked = self._ranked(block.numbers.to(self.model.device), own, explained)
        return ((part, lists(part, each)) for part, each in ranked)

    def neighbors(self, numbers: Sequence[int]) -> Iterator[Encoded]:
        """The most similar items of items: the list of a user who has only the item.

        As `lists`; an item to which nothing is similar has an empty list.
        """
        model, now = self.model, int(time.time() * 1000)
        items = torch.tensor(numbers, dtype=torch.int64, device=model.device)
        starts = torch.arange(len(items) + 1, device=model.device)
        own = Own(starts, items, torch.ones(len(items), device=model.device))

        def encoded(part: slice, ranked: Ranked) -> Encoded:
            n = len(ranked.counts)
            lists = Lists(*ranked, np.full(n, model.manifest.trained_at))
            ids = [model.item_ids[number] for number in numbers[part]]
            return Encoded(ids, encode(lists, self._quoted, model.version, ["model"] * n, now))

        ranked = self._ranked(torch.full_like(items, -1), own, False)
        return (encoded(*each) for each in ranked)

    def _ranked(
        self, users: torch.Tensor, own: Own, explained: bool
    ) -> Iterator[tuple[slice, Ranked]]:
        """Where there are several threads, they begin in the call."""
        n = len(users)
        size = max(1, min(PART, -(-n // self._threads) if n >= FEWEST_TO_SHARE else n))
        parts = [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]
        embeddings = self.model.embeddings

        def one(part: slice) -> Ranked:
            edges = own.slice(part.start, part.stop)
            mine = users[part]
            return rank(embeddings, self._first, mine, edges, self._k, self._unliked, explained)

        run: Callable[..., Iterator[Ranked]] = self._pool.map if self._pool else map
        return zip(parts, run(one, parts), strict=True)
