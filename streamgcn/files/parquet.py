"""Parquet: columns with types of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from process.text import visible
from streamgcn.files.block import ROWS, Block, Wrong
from streamgcn.files.columns import Roles
from streamgcn.files.source import FileError, Source


class Parquet:
    """Rows of a Parquet file; see Rows."""

    counted = "row"
    untyped = False

    def __init__(self, source: Source) -> None:
        """Read the file's schema.

        Raises:
            FileError: it is damaged.
        """
        self._source = source
        self.notes: list[str] = []
        try:
            with pq.ParquetFile(source.path) as file:
                self.names: list[str] = file.schema_arrow.names
        except (OSError, pa.ArrowException) as error:
            raise _damaged(source, error) from error

    def blocks(self, roles: Roles) -> Iterator[Block]:
        """See Rows."""
        first = 1
        try:
            with pq.ParquetFile(self._source.path) as file:
                for batch in file.iter_batches(ROWS, columns=roles.used()):
                    yield self._block(batch, roles, first)
                    first += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self._source, error) from error

    def _block(self, batch: pa.RecordBatch, roles: Roles, first: int) -> Block:
        columns = {name: _plain(batch[name]) for name in roles.used()}
        good, wrong = np.ones(len(batch), np.bool_), []
        for name in (roles.user, roles.item):
            columns[name], bad = self._ids(columns[name], name)
            wrong += [
                Wrong(first + row, f"{visible(name)} is {batch[name][row]}; an id must be whole")
                for row in np.flatnonzero(bad & good).tolist()
            ]
            good &= ~bad
        numbers = (first + np.flatnonzero(good)).tolist()
        if wrong:
            columns = {name: column.filter(pa.array(good)) for name, column in columns.items()}
        return Block(numbers, columns, wrong)

    def _ids(self, column: pa.Array, name: str) -> tuple[pa.Array, np.ndarray]:
        """A column of ids as strings, null for none, and where it holds numbers not whole."""
        kind = column.type
        fine = np.zeros(len(column), np.bool_)
        if pt.is_integer(kind) or pt.is_null(kind):
            return column.cast(pa.string()), fine
        if pt.is_floating(kind) or pt.is_decimal(kind):
            numbers = column.cast(pa.float64())
            whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2**53))
            whole = pc.and_(whole, pc.is_finite(numbers)).fill_null(True)
            kept = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
            return kept, ~whole.to_numpy(zero_copy_only=False)
        if pt.is_string(kind):
            return pc.if_else(pc.equal(column, ""), None, column), fine
        raise FileError(
            f"{self._source.name}: column {visible(name)} is of type {visible(str(kind))}; "
            "ids must be strings or whole numbers"
        )


def _plain(column: pa.Array) -> pa.Array:
    """A column without a dictionary, and any kind of text as strings."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_binary(kind):
        return column.cast(pa.string())
    return column


def _damaged(source: Source, error: Exception) -> FileError:
    return FileError(f"{source.name} cannot be read as Parquet: {visible(str(error), 200)}")
