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
from streamgcn.files.source import FileError, InputFile

_TEXTS = (
    pt.is_string, pt.is_large_string, pt.is_string_view,
    pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary,
)  # fmt: skip


class Parquet:
    """Rows of a Parquet file; see FileReader."""

    counted = "row"
    untyped = False

    def __init__(self, source: InputFile) -> None:
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
        """See FileReader."""
        first = 1
        try:
            with pq.ParquetFile(self._source.path) as file:
                for batch in file.iter_batches(ROWS, columns=roles.used()):
                    yield self._block(batch, roles, first)
                    first += len(batch)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self._source, error) from error

    def _block(self, batch: pa.RecordBatch, roles: Roles, first: int) -> Block:
        columns: dict[str, pa.Array] = {}
        good, wrong = np.ones(len(batch), np.bool_), []
        for name in roles.used():
            columns[name], bad = _plain(batch[name])
            reason = "holds bytes that are no UTF-8"
            if name in (roles.user, roles.item) and not bad.any():
                columns[name], bad = self._ids(columns[name], name)
                reason = "is {}; an id must be whole"
            wrong += [
                Wrong(first + row, f"{visible(name)} {reason.format(batch[name][row])}")
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


def _plain(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column without a dictionary, any kind of text as strings, and where it is no UTF-8.

    A file's strings may be no UTF-8 either: whoever wrote it need not have looked.
    """
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    fine = np.zeros(len(column), np.bool_)
    if not any(is_text(column.type) for is_text in _TEXTS):
        return column, fine
    values = column.cast(pa.binary())
    try:
        return values.cast(pa.string()), fine
    except pa.ArrowInvalid:
        texts = [_decoded(value) for value in values.to_pylist()]
        made = pa.array(texts, pa.string())
        return made, (made.is_null().to_numpy(False) & values.is_valid().to_numpy(False))


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _damaged(source: InputFile, error: Exception) -> FileError:
    return FileError(f"{source.name} cannot be read as Parquet: {visible(str(error), 200)}")
