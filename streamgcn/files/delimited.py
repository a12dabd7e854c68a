"""Separated text: its separator, the names of its columns, its rows as blocks of columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from process.text import visible
from streamgcn.files.block import Block, Wrong
from streamgcn.files.columns import Columns, Roles, known
from streamgcn.files.fields import Chunk, chunks, filled
from streamgcn.files.source import FileError, InputFile
from streamgcn.files.text import opened

SEPARATORS = {
    "::": "double colons", "\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars",
    " ": "spaces",
}  # fmt: skip
SPELLED = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}
SAMPLE = 100  # lines from which the separator is read
_SEP = re.compile(r'"?sep=(.)"?')  # the first line of some spreadsheets' CSV
_SEPARATED = re.compile(r"[,;|\t]|::")


class Delimited:
    """Rows of a text file; see FileReader."""

    counted = "line"
    untyped = True

    def __init__(
        self,
        source: InputFile,
        encoding: str,
        given: Columns,
        names: Sequence[str] = (),
        separator: str | None = None,
    ) -> None:
        """Look at the first rows.

        Args:
            given: names of columns that must be there.
            names: of the columns of a file without a header.
            separator: None to find it.

        Raises:
            FileError: `names` are given, but the first line names columns.
        """
        if separator is not None and not separator.strip('\r\n"'):
            raise FileError("--separator must be one or more characters, or tab or space")
        self._source, self._encoding = source, encoding
        self._headed = not names
        self._passed, said = self._preamble()
        separator = separator or said
        if separator is None:
            self._separator = self._found(list(names), given)
        else:
            self._separator = SPELLED.get(separator, separator)
        rows, wrong = self._first(self._separator)
        if wrong or not rows:
            reason = f"line {wrong[0].number}: {wrong[0].reason}" if wrong else "no row is found"
            raise FileError(f"{source.name}, {reason}")
        first = rows[0]
        self._spaced = _spaced(first)
        header = [name.strip(" \t\ufeff") for name in first]
        self.names = header if self._headed else list(names)
        while self.names and not self.names[-1]:
            self.names.pop()
        if not self._headed and (set(header) & set(names) or _names_columns(header, names)):
            raise FileError(
                f"{source.name} has a header: {visible(', '.join(header), 200)}. Leave out "
                "--columns, and name columns with --user-column and --item-column"
            )
        self.notes = [] if encoding.startswith("utf-8") else [f"read as {visible(encoding)}"]
        if self._separator != ",":
            said = SEPARATORS.get(self._separator, repr(self._separator))
            self.notes.append(f"separated by {said}")
        if not self._headed:
            self.notes.append("without a header")
        if self._passed:
            lines = "line 1" if self._passed == 1 else f"lines 1 to {self._passed}"
            self.notes.append(f"{lines} passed over")

    def blocks(self, roles: Roles) -> Iterator[Block]:
        """See FileReader."""
        places = {name: self.names.index(name) for name in roles.used()}
        headed = self._headed
        with opened(self._source, self._encoding) as text:
            for chunk in self._chunks(text, self._separator, self._spaced):
                numbers, rows, wrong = self._regular(chunk)
                if headed and (numbers or wrong):
                    numbers, rows, headed = numbers[1:], rows[1:], False
                columns = {name: _texts([row[at] for row in rows]) for name, at in places.items()}
                yield Block(numbers, columns, wrong)

    def _regular(self, chunk: Chunk) -> Chunk:
        """The rows with as many fields as there are names; blank ones are left out.

        Empty fields at the end are none.
        """
        width = len(self.names)
        if self._spaced:
            rows = [[field.strip(" ") for field in row] for row in chunk.rows]
            chunk = chunk._replace(rows=rows)
        blank = [not row or not (row[0].strip() or filled(row)) for row in chunk.rows]
        if set(map(len, chunk.rows)) == {width} and not any(blank):
            return chunk
        made = Chunk([], [], list(chunk.wrong))
        for number, row, is_blank in zip(chunk.numbers, chunk.rows, blank, strict=True):
            if is_blank:
                continue
            if len(row) == width or len(row) > width >= len(filled(row)):
                made.numbers.append(number)
                made.rows.append(row)
            else:
                made.wrong.append(Wrong(number, self._ragged(row)))
        return made

    def _ragged(self, row: list[str]) -> str:
        has = "the header names" if self._headed else "--columns names"
        return f"the number of fields is {len(row)}, but {has} {len(self.names)}"

    def _first(self, separator: str) -> tuple[list[list[str]], list[Wrong]]:
        """The rows of the first lines that are not blank, and the wrong ones."""
        with opened(self._source, self._encoding) as text:
            found = list(self._chunks(islice(text, self._passed + SAMPLE), separator, False))
        rows = [row for chunk in found for row in chunk.rows if filled(row)]
        return rows, [wrong for chunk in found for wrong in chunk.wrong if not rows]

    def _chunks(self, text: Iterator[str], separator: str, spaced: bool) -> Iterator[Chunk]:
        """The rows after the preamble, numbered as the lines of the file."""
        for chunk in chunks(islice(text, self._passed, None), separator, spaced):
            numbers = [self._passed + number for number in chunk.numbers]
            wrong = [each._replace(number=self._passed + each.number) for each in chunk.wrong]
            yield Chunk(numbers, chunk.rows, wrong)

    def _preamble(self) -> tuple[int, str | None]:
        """How many lines come before the rows, and the separator that a line `sep=;` names.

        Lines before a header are remarks only if no separator is in them: `#user,item` is one.
        """
        with opened(self._source, self._encoding) as text:
            lines = [line.strip(" \r\n\ufeff") for line in islice(text, SAMPLE)]
        if lines and (named := _SEP.fullmatch(lines[0])):
            return 1, named[1]
        remarks = 0
        for line in lines:
            if line[:1] not in ("#", "%") or (self._headed and _SEPARATED.search(line)):
                break
            remarks += 1
        return remarks, None

    def _found(self, names: list[str], given: Columns) -> str:
        """The separator with which the first row has the columns, or else most rows alike."""
        best, found = (False, 0.0), ","
        for separator in SEPARATORS:
            rows, _ = self._first(separator)
            if not rows or len(rows[0]) < 2:
                continue
            fits = len(filled(rows[0])) == len(names) if names else _has_columns(rows[0], given)
            alike = Counter(len(filled(row)) for row in rows).most_common(1)[0][1] / len(rows)
            if (fits, alike) > best:
                best, found = (fits, alike), separator
        return found


def _spaced(row: list[str]) -> bool:
    """Whether a space stands before or after every separator, so that it is a part of them."""
    before = all(field[:1] == " " for field in row[1:])
    return len(row) > 1 and (before or all(field[-1:] == " " for field in row[:-1]))


def _has_columns(row: list[str], given: Columns) -> bool:
    names = [name.strip(" \t\ufeff") for name in row]
    user, item = (
        name in names if name else any(known(each, role) for each in names)
        for role, name in (("user", given.user), ("item", given.item))
    )
    return user and item


def _names_columns(row: list[str], names: Sequence[str]) -> bool:
    """Whether the first row of a file names columns where `names` has users and items."""
    pairs = list(zip(names, row, strict=False))
    return all(
        any(known(name, role) and known(field, role) for name, field in pairs)
        for role in ("user", "item")
    )


def _texts(values: list[str]) -> pa.Array:
    column = pa.array(values, pa.string())
    return pc.if_else(pc.equal(column, ""), None, column)
