"""The users of a snapshot lie in parts, each of a range of hashes of their ids.

The ranks of a training have ranges of the same hashes, so each writes parts of its own, and whoever
needs some of the users reads few parts, one at a time. A snapshot of format 1 has one part, which
lies in the files of the items, as "" says in the place of a part's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.arrays import Bools, Int64s
from trainer.graph.hashes import hashes_of
from trainer.ranks import ALONE, Ranks

OF_MODEL = {"base", "user_bias"}  # tensors of a model that have a row a user
OF_USERS = OF_MODEL | {"users"}  # and of what the next training goes on from
USERS_OF_PART = 1_000_000  # about; a reader holds one part beside what it keeps
IDS = re.compile(r"users(-\d{5}-of-\d{5})?\.parquet", re.ASCII)


def parts_for(users: int, ranks: Ranks) -> int:
    """How many parts a snapshot of so many users has: as many of each rank."""
    return ranks.size * max(1, -(-users // (ranks.size * USERS_OF_PART)))


def part_name(part: int, of: int) -> str:
    """What stands behind a file's stem: "-00000-of-00004"; "" where there are 0 parts."""
    return f"-{part:05}-of-{of:05}" if of else ""


def part_names(files: Iterable[str]) -> list[str]:
    """The names of the parts whose ids are among the files of a snapshot."""
    found = (IDS.fullmatch(file) for file in files)
    return sorted(match[1] or "" for match in found if match)


def origin(version: str, part: str) -> str:
    """What a part's files say of where they belong."""
    return version + part


def part_numbers(ids: pa.Array, of: int) -> Int64s:
    """The part of each user, int64 [users]."""
    if of <= 1:
        return np.zeros(len(ids), np.int64)
    scaled = hashes_of(ids).astype(np.uint64) * np.uint64(of)
    return (scaled >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Share:
    """Whose rows a reader needs.

    ranks: those of the users of this rank. keep: which of them, bool [ids], of the ids of a part;
    None: all. with_rows: of a model that has learned nothing of users but their edges, nobody's.
    """

    ranks: Ranks = ALONE
    keep: Callable[[pa.Array], Bools] | None = None
    with_rows: bool = False

    def parts(self, of: int) -> range:
        """The parts that have such users, of `of`."""
        rank, size = self.ranks.rank, self.ranks.size
        return range(of * rank // size, -(-of * (rank + 1) // size))

    def among(self, ids: pa.Array, part: int, of: int) -> Bools | None:
        """Which users of a part these are, bool [ids]; None: all."""
        rank, size = self.ranks.rank, self.ranks.size
        if part * size < rank * of or (part + 1) * size > (rank + 1) * of:
            there = pc.not_equal(ids, "").to_numpy(zero_copy_only=False)
            own: Bools = there & (part_numbers(ids, size) == rank)
            return own
        return self.keep(ids) if self.keep else None


EVERYBODY = Share()
NOBODY = Share(keep=lambda ids: np.zeros(len(ids), np.bool_))  # all is read, and nothing kept
