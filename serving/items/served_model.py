"""A snapshot in use: its tables on a device, with room for the items that came after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from consumer.edge.traces import digest
from serving.edges.edge import Edges
from serving.edges.strangers import Strangers
from serving.edges.user_edges import UserEdges
from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.item_fold_in import Folded
from trainer.graph.arrays import Int64s
from trainer.lifecycle.manifest import Snapshot
from trainer.lifecycle.parts import OF_MODEL

ROOM = 1_000  # new items that can be taken up until the next snapshot
ROOM_FOR_NEIGHBORS = 16  # of each item, for new items; beyond, they take the places of the farthest
WITH_ROOM = {"incoming", "outgoing", "neighbors", "similarities"}  # tables with a row for each item


class UserBlock(NamedTuple):
    """Users whose lists are made together.

    numbers: int64 [users], the model's numbers, -1 for users that it has not seen; own: their
    edges, items that cannot be recommended as -1; event_at: int64 [users], epoch milliseconds of
    each user's newest edge, 0 without one.
    """

    numbers: Tensor
    own: Own
    event_at: Int64s


class ServedModel:
    """What lists are made from.

    item_ids: of all items that can be recommended, those of the snapshot first; numbers: of these
    items; trained: the snapshot's tables, without the rows of new items, and in the same memory, so
    that rows of neighbours may come to name new items; left_out: users of the snapshot whose rows
    were left out.
    """

    def __init__(self, snapshot: Snapshot, device: torch.device) -> None:
        self.manifest = snapshot.manifest
        self.device = device
        embeddings = _with_a_user(snapshot.embeddings)
        self._tables = _with_room(embeddings.tensors, device)
        self.trained = replace(
            embeddings,
            tensors={
                name: self._tables[name][: len(table), : table.shape[1]]
                if name in WITH_ROOM
                else self._tables[name]
                for name, table in embeddings.tensors.items()
            },
        )
        self.item_ids: list[str] = snapshot.item_ids.to_pylist()
        self.numbers = {item: number for number, item in enumerate(self.item_ids)}
        # Where users have no rows of their own, nobody asks for their numbers.
        users = snapshot.user_ids.to_pylist() if has_rows(self.trained) else []
        self._users = {user: number for number, user in enumerate(users)}
        self.left_out = Strangers()
        self._of_graph: Int64s = np.empty(0, np.int64)  # number of each item of the users' graph
        self._graph_items: pa.Array | None = None  # the ids of these; None: they are to be numbered

    @property
    def version(self) -> str:
        """The snapshot's."""
        return self.manifest.version

    @property
    def embeddings(self) -> Embeddings:
        """The tables with the new items."""
        n = len(self.item_ids)
        tables = {name: t[:n] if name in WITH_ROOM else t for name, t in self._tables.items()}
        return replace(self.trained, tensors=tables)

    @property
    def room(self) -> int:
        """How many more new items can be taken up."""
        return len(self._tables["outgoing"]) - len(self.item_ids)

    def has(self, item: str) -> bool:
        """Whether the item can be recommended."""
        return item in self.numbers

    def block(
        self, users: Sequence[str], edges: UserEdges, told: Sequence[Edges | None] | None = None
    ) -> UserBlock:
        """Users with their edges, in this model's numbers; on the CPU; `told`: as
        `UserEdges.block`."""
        items = edges.graph.item_ids.values
        if self._graph_items is not items:  # as many ids may be others, of another edge store
            known = pa.array(self.item_ids, pa.string())
            numbers = pc.index_in(items, value_set=known)
            self._of_graph = numbers.fill_null(-1).to_numpy().astype(np.int64)
            self._graph_items = items
        numbers = torch.tensor(list(map(self.number, users)), dtype=torch.int64)
        return UserBlock(numbers, *edges.block(users, self._of_graph, self.numbers, told))

    def number(self, user: str) -> int:
        """The model's number of the user; -1 where the model has no row of the user."""
        return self._users.get(user, -1)

    def row(self, user: str) -> list[float]:
        """What the model has learned of the user beyond the edges; empty where that is nothing."""
        number = self.number(user)
        row: list[float] = self.trained.tensors["base"][number].tolist() if number >= 0 else []
        return row

    def with_rows(self, users: Sequence[tuple[int, Sequence[float]]]) -> tuple[Embeddings, Tensor]:
        """Tables and numbers for users of whom some are other processes'.

        Args:
            users: the number of each, as `number` gives it, or else the row, as `row` gives it.

        Returns:
            The tables of the snapshot with these rows, and int64 [users], the numbers in them.
        """
        base = self.trained.tensors["base"]
        width = base.shape[1]
        rows: list[Sequence[float]] = []
        numbers: list[int] = []
        for number, row in users:
            if number < 0 and width and len(row) == width:
                number = len(base) + len(rows)
                rows.append(row)
            numbers.append(number)
        made = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        if not rows:
            return self.trained, made
        more = torch.cat([base, torch.tensor(rows, dtype=base.dtype, device=self.device)])
        return replace(self.trained, tensors=self.trained.tensors | {"base": more}), made

    def forget(self, user: str) -> None:
        """Drop what the model has learned of a user beyond the user's edges."""
        self._users.pop(user, None)

    def forget_digests(self, digests: Collection[str]) -> None:
        """The same for users by the digests of their ids."""
        if digests:
            for user in [user for user in self._users if digest(user) in digests]:
                self.forget(user)

    def take_up(self, items: Sequence[str], folded: Folded) -> list[int]:
        """Put new items, or new rows of them, beside the others; returns their numbers.

        Those that there is no room for are left out.
        """
        new = [item for item in items if not self.has(item)][: self.room]
        for item in new:
            self.numbers[item] = len(self.numbers)
        self.item_ids += new
        self._graph_items = None
        placed = [
            (self.numbers[item], row) for row, item in enumerate(items) if item in self.numbers
        ]
        for number, row in placed:
            self._place(number, row, folded)
        return [number for number, _ in placed]

    def _place(self, number: int, row: int, folded: Folded) -> None:
        tables = self._tables
        tables["incoming"][number] = folded.incoming[row]
        tables["outgoing"][number] = folded.outgoing[row]
        if folded.neighbors is None or folded.similarities is None or folded.near is None:
            return
        neighbors, similarities = tables["neighbors"], tables["similarities"]
        kept = folded.neighbors.shape[1]
        neighbors[number, :kept] = folded.neighbors[row]
        similarities[number, :kept] = folded.similarities[row]
        # The new item becomes a neighbour of others, in the place of each one's farthest.
        others = folded.near[row].nonzero()[:, 0]
        near = folded.near[row, others]
        there = neighbors[others] == number
        has = there.any(1)
        place = torch.where(has, there.int().argmax(1), similarities[others].argmin(1))
        better = has | (near > similarities[others, place])
        others, place = others[better], place[better]
        neighbors[others, place] = number
        similarities[others, place] = near[better]


def has_rows(embeddings: Embeddings) -> bool:
    """Whether the model has learned anything of users beyond their edges."""
    return embeddings.tensors["base"].shape[1] > 0


def _with_a_user(embeddings: Embeddings) -> Embeddings:
    """With a row of zeros where there is none: what is looked up in a table must not be empty."""
    if embeddings.n_users:
        return embeddings
    tables = embeddings.tensors
    more = {
        name: tables[name].new_zeros(1, *tables[name].shape[1:])
        for name in OF_MODEL & tables.keys()
    }
    return replace(embeddings, tensors=tables | more)


def _with_room(tables: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies with zero rows for new items, and zero columns for them as neighbours.

    All are copies: a table that is read from a file keeps the whole file in memory.
    """
    made = {name: t.to(device, copy=True) for name, t in tables.items() if name not in WITH_ROOM}
    for name in WITH_ROOM & tables.keys():
        columns = ROOM_FOR_NEIGHBORS if name in ("neighbors", "similarities") else 0
        made[name] = _padded(tables[name], ROOM, columns, device)
    return made


def _padded(table: Tensor, rows: int, columns: int, device: torch.device) -> Tensor:
    """A copy with so many zero rows and columns more. On the CPU rows take no memory until
    something is written there, as numpy asks the system for zeros and torch writes them."""
    n, width = table.shape
    shape = n + rows, width + columns
    if device.type == "cpu":
        made = torch.from_numpy(np.zeros(shape, torch.empty(0, dtype=table.dtype).numpy().dtype))
    else:
        made = torch.zeros(shape, dtype=table.dtype, device=device)
    made[:n, :width] = table
    return made
