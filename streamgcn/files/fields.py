"""Lines of separated text -> rows of fields.

Fields in double quotes may hold commas, semicolons or bars, and line ends; in a text separated by
tabs, `::` or spaces they may hold no separator.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from streamgcn.files.block import ROWS, Wrong

QUOTED = ",;|"  # separators that a quoted field may hold
FIELD = 1024 * 1024  # characters of a field; an open quote swallows no more
csv.field_size_limit(FIELD)


class Chunk(NamedTuple):
    """Rows as they come, blank ones too, and the line at which each begins, from 1."""

    numbers: list[int]
    rows: list[list[str]]
    wrong: list[Wrong]


def chunks(text: Iterator[str], separator: str, spaced: bool) -> Iterator[Chunk]:
    """The rows of lines; `spaced`: a space after a separator does not belong to the field."""
    return _quoted(text, separator, spaced) if separator in QUOTED else _split(text, separator)


def _quoted(text: Iterator[str], separator: str, spaced: bool) -> Iterator[Chunk]:
    reader = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=spaced)
    while True:
        chunk, before = Chunk([], [], []), reader.line_num
        try:
            for row in islice(reader, ROWS):
                chunk.rows.append(row)
                chunk.numbers.append(before + 1)
                before = reader.line_num
        except csv.Error as error:
            chunk.wrong.append(_unquoted(error, before + 1, reader.line_num))
        if not chunk.rows and not chunk.wrong:
            return
        yield chunk


def _split(text: Iterator[str], separator: str) -> Iterator[Chunk]:
    first = 1
    while lines := [line.rstrip("\r\n") for line in islice(text, ROWS)]:
        rows = [line.split(separator) for line in lines]
        if separator == " ":
            rows = [[field for field in row if field] for row in rows]
        if any('"' in line for line in lines):
            rows = [[_bare(field) for field in row] for row in rows]
        yield Chunk(list(range(first, first + len(rows))), rows, [])
        first += len(rows)


def _bare(field: str) -> str:
    """A field without the quotes around it, and with one quote where two stand for one."""
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _unquoted(error: csv.Error, first: int, last: int) -> Wrong:
    through = f", which goes on to line {last}," if last > first else ""
    return Wrong(first, f"a quoted field{through} does not end as it should: {error}")


def filled(row: list[str]) -> list[str]:
    """A row without the empty fields at the end."""
    length = len(row)
    while length and not row[length - 1].strip():
        length -= 1
    return row[:length]
