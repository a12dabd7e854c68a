"""What a snapshot says of its users is read part by part, and cut to the users who are needed.

So a reader holds the rows of these users and, for a moment, one part. All raises SnapshotError
where a part is missing, broken or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from trainer.lifecycle import checks, users_checked
from trainer.lifecycle.manifest import Manifest, SnapshotError
from trainer.lifecycle.parts import Share, origin, part_name
from trainer.lifecycle.storage import Storage
from trainer.lifecycle.trained_edges import Trained, joined
from trainer.lifecycle.troubles import named, reading

Tables = dict[str, Tensor]


class Part(NamedTuple):
    """One part: its name, how many users it has, and the ids and rows of those who are needed.

    rows: int64 [ids], None for all.
    """

    name: str
    users: int
    ids: pa.Array
    rows: Tensor | None


class Users:
    """The users of one snapshot, as far as a reader needs them."""

    def __init__(self, storage: Storage, manifest: Manifest, share: Share) -> None:
        """Nothing is read yet."""
        self._storage, self._manifest, self._share = storage, manifest, share
        self._of = max(1, manifest.parts)
        self._numbers = share.parts(self._of)

    def first(self, stem: str) -> str:
        """The name of a file of the first part that is read."""
        return self._name(stem, part_name(self._numbers[0], self._manifest.parts))

    def tables(self) -> tuple[pa.Array, Tables]:
        """The ids, string [users], and the model's tensors with a row for each of these."""
        ahead: Tables | None = None
        if self._share.with_rows:
            ahead = self._rows(part_name(self._numbers[0], self._manifest.parts))
            if not ahead["base"].shape[1]:
                return pa.array([], pa.string()), {key: of[:0] for key, of in ahead.items()}
        parts = self._parts()
        self._count(parts)
        made = _Rows(parts)
        for part in parts:
            found, ahead = ahead or self._rows(part.name), None
            made.put(self._place("tables", part.name), part, found)
            del found  # before the next part is read
        with named(self._place("users", parts[-1].name)):
            return pa.concat_arrays([part.ids for part in parts]), made.tables

    def start(self) -> Tensor:
        """The users' rows of what the next training goes on from, float32 [users, dim]."""
        parts = self._parts()
        made = _Rows(parts)
        for part in parts:
            with reading(self._storage, self._name("start", part.name)) as file:
                found = users_checked.read_start(file, self._manifest, part.name, part.users)
            made.put(self._place("start", part.name), part, {"users": found})
            del found
        return made.tables["users"]

    def trained(self) -> Trained:
        """The users' edges that the snapshot was trained on."""
        made = []
        for part in self._parts():
            with reading(self._storage, self._name("trained", part.name)) as file:
                edges = users_checked.read_trained(file, self._manifest, part.name, part.users)
            made.append(edges if part.rows is None else edges.of_users(part.rows))
        return joined(made)

    def _parts(self) -> list[Part]:
        made = []
        for number in self._numbers:
            part = part_name(number, self._manifest.parts)
            with reading(self._storage, self._name("users", part)) as file:
                told = origin(self._manifest.version, part)
                ids = checks.read_ids(file, "user_id", told, blanks=True)
            own = self._share.among(ids, number, self._of)
            if own is None:
                made.append(Part(part, len(ids), ids, None))
            else:
                rows = torch.from_numpy(own).nonzero()[:, 0]
                made.append(Part(part, len(ids), ids.filter(pa.array(own)), rows))
        return made

    def _count(self, parts: Sequence[Part]) -> None:
        found, said = sum(part.users for part in parts), self._manifest.users
        if found > said or (len(parts) == self._of and found < said):
            place = self._place("users", parts[-1].name)
            raise SnapshotError(
                f"the files of users up to {place} hold {found} users in all; "
                f"the manifest says {said}"
            )

    def _rows(self, part: str) -> Tables:
        with reading(self._storage, self._name("tables", part)) as file:
            return users_checked.read_rows(file, self._manifest, part)

    def _name(self, stem: str, part: str) -> str:
        suffix = "parquet" if stem == "users" else "safetensors"
        return f"{self._manifest.version}/{stem}{part}.{suffix}"

    def _place(self, stem: str, part: str) -> str:
        return self._storage.place(self._name(stem, part))


class _Rows:
    """Tables of all parts, filled part by part, so that they are held once.

    tables: of all users who are needed, once each part was put in.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._alone = len(parts) == 1
        self._total = sum(len(part.ids) for part in parts)
        self._at = 0
        self.tables: Tables = {}

    def put(self, place: str, part: Part, found: Tables) -> None:
        """Add what was found in a file at `place`.

        Raises:
            SnapshotError: it does not fit the ids, or the parts before.
        """
        for key, table in found.items():
            if len(table) != part.users:
                raise SnapshotError(f"{place}: {key} has {len(table)} rows for {part.users} users")
            own = table if part.rows is None else table[part.rows]
            if self._alone:
                self.tables[key] = own
                continue
            made = self.tables.setdefault(key, own.new_empty(self._total, *own.shape[1:]))
            if made.shape[1:] != own.shape[1:]:
                raise SnapshotError(f"{place}: {key} has other columns than in the parts before")
            made[self._at : self._at + len(own)] = own
        self._at += len(part.ids)
