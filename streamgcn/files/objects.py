"""JSON: an object on each line, or objects one after another or in an array, over any lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa

from process.text import visible
from streamgcn.files.block import ROWS, Block, Wrong
from streamgcn.files.columns import Roles
from streamgcn.files.source import FileError, InputFile
from streamgcn.files.text import LONGEST, opened

EXACT = 2**53  # a whole float below was not rounded
Numbered = Iterator[tuple[int, Any]]  # a value or a Wrong


class Objects:
    """Rows of a JSON file; see FileReader. A key that is in one object is a column of all."""

    untyped = False

    def __init__(self, source: InputFile, encoding: str) -> None:
        """Read all keys."""
        self._source, self._encoding = source, encoding
        self.notes: list[str] = []
        with opened(source, encoding) as text:
            begin = list(islice((line for line in text if line.strip()), 2))
        # One of the first two lines may be damaged.
        lines = any(isinstance(_decoded(line), dict) for line in begin)
        self._by_line = lines and begin[0].lstrip(" \t\ufeff").startswith("{")
        self.counted = "line" if self._by_line else "object"
        names: dict[str, None] = {}
        for _, value in self._values():
            if isinstance(value, dict) and not value.keys() <= names.keys():
                names |= dict.fromkeys(value)
        self.names = list(names)

    def blocks(self, roles: Roles) -> Iterator[Block]:
        """See FileReader."""
        texts: dict[str, Callable[[Any], str | None]] = dict.fromkeys(roles.used(), _text)
        texts |= {roles.user: _id, roles.item: _id}
        values = self._values()
        while part := list(islice(values, ROWS)):
            numbers, wrong = [], []
            columns: dict[str, list[str | None]] = {name: [] for name in texts}
            for number, value in part:
                try:
                    row = _row(value, texts)
                except _Refused as error:
                    wrong.append(Wrong(number, str(error)))
                    continue
                numbers.append(number)
                for column, text in zip(columns.values(), row, strict=True):
                    column.append(text)
            arrays = {name: pa.array(each, pa.string()) for name, each in columns.items()}
            yield Block(numbers, arrays, wrong)

    def _values(self) -> Numbered:
        with opened(self._source, self._encoding) as text:
            if not self._by_line:
                yield from _successive(text, self._source.name)
                return
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield number, _decoded(line)


class _Refused(ValueError):
    """A value that is no row."""


def _row(value: Any, texts: dict[str, Callable[[Any], str | None]]) -> list[str | None]:
    if isinstance(value, Wrong):
        raise _Refused(value.reason)
    if not isinstance(value, dict):
        raise _Refused(f"it is no JSON object but {_shown(value)}")
    row = []
    for name, text in texts.items():
        try:
            made = text(value.get(name))
            (made or "").encode()
        except UnicodeEncodeError:
            raise _Refused(f"{visible(name)} has half a character (a lone surrogate)") from None
        except _Refused as error:
            raise _Refused(f"{visible(name)} is {_shown(value[name])}; {error}") from None
        row.append(made)
    return row


def _id(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    if isinstance(value, bool | float | dict | list):
        raise _Refused("an id must be a string or a whole number")
    return _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, bool | dict | list):
        raise _Refused("a number or a string must be there")
    return None if value is None or value == "" else str(value)


def _shown(value: Any) -> str:
    return visible(json.dumps(value, default=str), 60)


def _decoded(line: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        pass  # it may hold NaN, which is no JSON, but what Python writes
    except (RecursionError, UnicodeError) as error:
        return Wrong(0, f"it is no JSON: {visible(str(error))}")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Wrong(0, f"it is no JSON: {visible(str(error))}")


def _successive(text: Iterator[str], file: str) -> Numbered:
    """The values of a text one after another, those of an array each by itself, from 1."""
    decoder = json.JSONDecoder()
    held, at, number, ended = "", 0, 0, False
    while True:
        while at < len(held) and held[at] in " \t\r\n,[]\ufeff":
            at += 1
        try:
            if at == len(held):
                raise ValueError("the text ends")
            value, at = decoder.raw_decode(held, at)
        except (ValueError, RecursionError) as error:
            if ended and at == len(held):
                return
            if ended or len(held) - at > LONGEST:
                raise FileError(
                    f"{file}: what follows object {number} is no JSON: "
                    f"{visible(held[at : at + 60])} ({error})"
                ) from None
            more = "".join(islice(text, 1000))
            held, at, ended = held[at:] + more, 0, not more
        else:
            number += 1
            yield number, value
