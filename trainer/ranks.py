"""The processes of one training, as torchrun numbers them: each holds the edges of its own users.

What is summed over all users is summed over the ranks. What a method says to the others must be
said by all of them, in the same order and on one thread. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]


class Ranks:
    """This process alone: a sum is what it was given, and nothing is sent."""

    size = 1
    rank = 0

    @property
    def several(self) -> bool:
        """Whether other processes train with this one."""
        return self.size > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that decides, writes and reports."""
        return self.rank == 0

    @property
    def own(self) -> slice:
        """Which rows of a table are this rank's, where each row is of one rank: every size-th one,
        as popular items lie side by side and make more work."""
        return slice(self.rank, None, self.size)

    def total(self, number: int) -> int:
        """The sum of all ranks' numbers."""
        return number

    def before(self, number: int) -> int:  # noqa: ARG002
        """The sum of the numbers of the ranks before this one."""
        return 0

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        return number

    def largest(self, number: float) -> float:
        """The same of numbers that are not whole."""
        return number

    def any(self, yes: bool) -> bool:
        """Whether it is so on at least one rank."""
        return yes

    def sum(self, values: Array) -> Array:
        """The sum of all ranks' arrays, which have one shape."""
        return values

    def sum_tensor(self, values: Tensor) -> Tensor:
        """The sum of all ranks' tensors, which have one shape; the given one is overwritten."""
        return values

    def sum_at(self, values: Tensor, rank: int) -> Tensor:  # noqa: ARG002
        """The sum of all ranks' tensors, which have one shape, on one rank; on the others nothing
        of use. The given one is overwritten."""
        return values

    def whole(self, rows: Tensor) -> Tensor:
        """A table of which each rank has the rows that `own` says."""
        return rows

    def whole_at_first(self, rows: Tensor) -> Tensor:
        """The same on the first rank alone; on the others what was given."""
        return rows

    def spread(self, values: Tensor) -> float:
        """Standard deviation of the entries of all ranks' tensors."""
        return float(values.std(unbiased=False))

    def joined(self, values: Array) -> Array:
        """All ranks' arrays one after another along the first axis."""
        return values

    def swapped(self, parts: Sequence[Array]) -> list[Array]:
        """Give each rank the part of its number; returns what each rank gave to this one."""
        return list(parts)

    def firsts(self, values: Tensor) -> Tensor:
        """What the first rank has, in the place of this rank's values of the same shape."""
        return values

    def said(self, words: bytes) -> bytes:
        """What the first rank says."""
        return words

    def leave(self) -> None:
        """Nothing more is said to the others."""


ALONE = Ranks()


def started() -> int:
    """How many processes torchrun says it has started, 1 if it did not start this one."""
    given = os.environ.get("WORLD_SIZE", "1").strip()
    return int(given) if given.isdecimal() else 1


def number() -> int:
    """Which of them this process is, from 0."""
    given = os.environ.get("RANK", "0").strip()
    return int(given) if started() > 1 and given.isdecimal() else 0
