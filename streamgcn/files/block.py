"""A part of a file: some rows of the columns that are read, and the rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import pyarrow as pa

from streamgcn.files.columns import Roles

ROWS = 20_000  # of a block, at most


class Wrong(NamedTuple):
    """A row that is no event: its number as a user counts it, and why."""

    number: int
    reason: str


class Block(NamedTuple):
    """Rows in the order of the file.

    numbers: of each row, as a user counts; columns: by the name in the file, null where a row has
    nothing; wrong: rows that are in none of these.
    """

    numbers: list[int]
    columns: dict[str, pa.Array]
    wrong: list[Wrong]


class FileReader(Protocol):
    """Reads a file of one kind.

    Attributes:
        names: all columns, in order.
        counted: what a number of a row counts: "line" (from 1, the header included) or "row".
        untyped: whether all values are mere text, as in CSV, so that a column of numbers with gaps
            may have been written as 17850.0.
        notes: what was assumed of the file, in words.
    """

    names: list[str]
    counted: str
    untyped: bool
    notes: list[str]

    def blocks(self, roles: Roles) -> Iterator[Block]:
        """All rows, from the first; may be asked for again.

        Raises:
            FileError: the file cannot be read on.
        """
        ...
