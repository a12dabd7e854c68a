"""From users' edges to their lists: fold in, rank, explain. The one way by which a list is made."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional

from consumer.edge.traces import digest
from serving.edges.user_edges import Block, Edges, UserEdges
from serving.lists import encoding as lists
from serving.lists.encoding import Lists
from serving.lists.topk import FirstPass, best
from serving.redis.contract import Recommendations
from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.item_fold_in import Folded
from trainer.graph.arrays import Float32s, Int64s
from trainer.lifecycle.manifest import Snapshot

SPARE = 1_000  # new items that can be taken up until the next snapshot
SPARE_NEIGHBORS = 16  # of each item, for new items; beyond, they take the places of the farthest
ROOMY = {"incoming", "outgoing", "neighbors", "similarities"}  # tensors with room for new items
SCORES = 16_000_000  # in memory at a time
MOST = 128  # lists in a block,
PART = 64  # and in what a thread makes of it at a time
SPLIT = 16  # lists from which they are made on several threads

Source = Literal["model", "live"]
Values = tuple[Sequence[str], list[bytes]]  # ids, and their lists as JSON
Bools = npt.NDArray[np.bool_]


class Found(NamedTuple):
    """The columns of Lists that ranking gives."""

    items: Int64s
    scores: Float32s
    because: Int64s
    counts: Int64s


class Recommender:
    """A snapshot on its device with the new items since, and lists made from users' edges."""

    def __init__(self, snapshot: Snapshot, device: torch.device, k: int, threads: int = 1) -> None:
        """Args:
        k: length of the lists.
        threads: on which lists are made side by side, each on one core: most of the work
            is to gather rows, which torch itself does on one.
        """
        self.version = snapshot.manifest.version
        self.manifest = snapshot.manifest
        self.item_ids: list[str] = snapshot.item_ids.to_pylist()
        self.trained = snapshot.embeddings.to(device)  # without the new items
        self.device = device
        self._k = k
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._threads = threads
        self._tensors = _with_room(self.trained.tensors)
        first = FirstPass.of(self.trained, k)
        self._first = first and first.with_room(SPARE)
        self._unliked = _unliked(self.trained)
        self._quoted = lists.quoted(snapshot.item_ids)
        self._users = {user: number for number, user in enumerate(snapshot.user_ids.to_pylist())}
        self._items = {item: number for number, item in enumerate(self.item_ids)}
        self._of_graph: Int64s = np.empty(0, np.int64)

    @property
    def block(self) -> int:
        """Users or items whose lists are made at a time; the same in all processes."""
        return max(1, min(MOST, SCORES // max(1, self.trained.n_items)))

    @property
    def embeddings(self) -> Embeddings:
        """The model with the new items."""
        n = len(self.item_ids)
        tensors = {k: t[:n] if k in ROOMY else t for k, t in self._tensors.items()}
        return replace(self.trained, tensors=tensors)

    def own(self, users: Sequence[str], edges: UserEdges) -> tuple[Block, Int64s]:
        """The users' edges in the numbering of the items here, and the users' numbers, -1 for new.

        Items that are not known here are -1.
        """
        if len(self._of_graph) != edges.graph.n_items:
            known = pa.array(self.item_ids, pa.string())
            numbers = pc.index_in(edges.graph.item_ids.values, value_set=known)
            self._of_graph = numbers.fill_null(-1).to_numpy().astype(np.int64)
        numbers = np.array([self._users.get(user, -1) for user in users], np.int64)
        return edges.block(users, self._of_graph, self._items), numbers

    def lists(
        self,
        users: Sequence[str],
        edges: UserEdges,
        sources: Sequence[Source],
        popular: Recommendations,
    ) -> Iterator[Values]:
        """The JSON values of the users' lists, in their order, some at a time; popular items where
        no edge is to a known item.

        The edges are read in the call; the lists are then made on the threads, also while no one
        asks for them.

        Args:
            sources: what each list is to say of why it was written.
        """
        own, numbers = self.own(users, edges)
        ranked, now = self.rank(numbers, own), int(time.time() * 1000)

        def values(part: slice, found: Lists, usable: Bools) -> Values:
            mine = users[part]
            made = lists.values(found, self._quoted, self.version, sources[part], now)
            for row in np.flatnonzero(~usable).tolist():
                at = int(found.event_at[row])
                value = without(popular, edges.items(mine[row]), self._k, at, now)
                made[row] = msgspec.json.encode(value)
            return mine, made

        return (values(*each) for each in ranked)

    def rank(self, numbers: Int64s, own: Block) -> Iterator[tuple[slice, Lists, Bools]]:
        """The lists of users by their numbers and edges, of `own`; as `lists`.

        Returns:
            some after others: which users, their lists, and bool [users], false where no edge is of
            any use.
        """
        users, block = torch.from_numpy(numbers).to(self.device), _known(own).to(self.device)
        usable = (block.sums() > 0).cpu().numpy()
        return (
            (part, Lists(*found, own.event_at[part]), usable[part])
            for part, found in self._ranked(users, block)
        )

    def neighbors(self, numbers: Sequence[int]) -> Iterator[Values]:
        """The values of items' most similar items: what one who has only the item would get.

        As `lists`.
        """
        items = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        starts = torch.arange(len(items) + 1, device=self.device)
        own = Own(starts, items, torch.ones(len(items), device=self.device))
        ranked = self._ranked(torch.full_like(items, -1), own, explained=False)
        now = int(time.time() * 1000)

        def values(part: slice, found: Found) -> Values:
            n = len(found.counts)
            made = Lists(*found, np.full(n, self.manifest.trained_at))
            made = made._replace(because=made.because[:, :0])
            ids = [self.item_ids[number] for number in numbers[part]]
            sources = ["model"] * n
            return ids, lists.values(made, self._quoted, self.version, sources, now)

        return (values(*each) for each in ranked)

    def forget(self, user: str) -> None:
        """Drop what the model has learned of a user beyond its edges."""
        self._users.pop(user, None)

    def forget_digests(self, digests: Collection[str]) -> None:
        """The same for users by the digests of their ids."""
        if digests:
            for user in [user for user in self._users if digest(user) in digests]:
                self.forget(user)

    def has(self, item: str) -> bool:
        """Whether the item can be recommended."""
        return item in self._items

    @property
    def room(self) -> int:
        """For so many more new items."""
        return len(self._tensors["outgoing"]) - len(self.item_ids)

    def take_up(self, items: Sequence[str], folded: Folded) -> list[int]:
        """Put new items, or new rows of them, beside the others; returns their numbers.

        At most SPARE of them until the next snapshot; those beyond are left out.
        """
        new = [item for item in items if not self.has(item)][: self.room]
        for item in new:
            self._items[item] = len(self._items)
        self.item_ids += new
        self._quoted = pa.concat_arrays([self._quoted, lists.quoted(pa.array(new, pa.string()))])
        self._of_graph = np.empty(0, np.int64)  # to be made anew
        placed = [(self._items[item], row) for row, item in enumerate(items) if item in self._items]
        for number, row in placed:
            self._place(number, row, folded)
        numbers = [number for number, _ in placed]
        if self._first:
            self._first.put(numbers, self.trained, self._tensors["outgoing"][numbers])
        return numbers

    def _ranked(
        self, users: Tensor, own: Own, explained: bool = True
    ) -> Iterator[tuple[slice, Found]]:
        n = len(users)
        size = max(1, min(PART, -(-n // self._threads) if n >= SPLIT else n))
        parts = [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]
        given = [(users[part], own.slice(part.start, part.stop)) for part in parts]
        run = self._pool.map if self._pool else map
        return zip(parts, run(partial(self._ranked_part, explained), given), strict=True)

    def _ranked_part(self, explained: bool, part: tuple[Tensor, Own]) -> Found:
        users, own = part
        embeddings = self.embeddings
        scores, items = best(embeddings, self._first, users, own, self._k, self._unliked)
        because = items
        if explained:
            because = _largest(embeddings.contributions(users, own, items), own)
        columns = (items, scores, because, scores.isfinite().sum(1))
        return Found(*(column.cpu().numpy() for column in columns))

    def _place(self, number: int, row: int, folded: Folded) -> None:
        tensors = self._tensors
        tensors["incoming"][number] = folded.incoming[row]
        tensors["outgoing"][number] = folded.outgoing[row]
        if folded.neighbors is None or folded.similarities is None or folded.near is None:
            return
        neighbors, similarities = tensors["neighbors"], tensors["similarities"]
        kept = folded.neighbors.shape[1]
        neighbors[number, :kept] = folded.neighbors[row]
        similarities[number, :kept] = folded.similarities[row]
        others = folded.near[row].nonzero()[:, 0]
        near = folded.near[row, others]
        there = neighbors[others] == number
        has = there.any(1)
        place = torch.where(has, there.int().argmax(1), similarities[others].argmin(1))
        better = has | (near > similarities[others, place])
        others, place = others[better], place[better]
        neighbors[others, place] = number
        similarities[others, place] = near[better]


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


def _with_room(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies with zero rows for new items, and zero columns for them as neighbours."""
    made = dict(tensors)
    for name in ROOMY & tensors.keys():
        columns = SPARE_NEIGHBORS if name in ("neighbors", "similarities") else 0
        made[name] = functional.pad(tensors[name], (0, columns, 0, SPARE))
    return made


def _known(own: Block) -> Own:
    """The edges to items that have a number."""
    known = own.items >= 0
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(known)])
    columns = before[own.starts], own.items[known], own.strengths[known], own.ages[known]
    return Own(*(torch.from_numpy(column) for column in columns))


def _unliked(embeddings: Embeddings) -> Tensor | None:
    """Items that nobody whom the model knows likes: in no list, not even behind bad ones."""
    strengths = embeddings.tensors.get("strengths")
    items = None if strengths is None else (strengths <= 0).nonzero()[:, 0]
    return items if items is not None and len(items) else None


def _largest(shares: Tensor, own: Own) -> Tensor:
    """The own item with the largest of the shares [edges, k] of each score, int64 [users, k].

    What the user does not like is no reason.
    """
    disliked = own.strengths <= 0
    if disliked.any():
        shares[disliked] = -torch.inf
    lengths = own.starts.diff()
    made = own.items.new_zeros(len(lengths), shares.shape[1])
    some = lengths > 0
    parts = torch.split(shares, lengths[some].tolist())
    if parts:
        places = torch.stack([part.argmax(0) for part in parts])
        made[some] = own.items[places + own.starts[:-1][some, None]]
    return made
