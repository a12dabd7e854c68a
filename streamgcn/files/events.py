"""The rows of a file -> events, by the rules that the consumer will apply to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event.rules import check
from process.text import visible
from streamgcn.files import dates
from streamgcn.files.block import Block, FileReader, Wrong
from streamgcn.files.columns import Roles
from streamgcn.files.moments import NUMBER, Found, moments
from streamgcn.files.numbers import DecimalCommas, without_gaps
from streamgcn.files.source import FileError

WHOLE = r"^-?[0-9]+\.0$"


@dataclass(frozen=True)
class Survey:
    """What a column as a whole tells of each of its values.

    Attributes:
        whole: columns of ids of which each is written as 17850.0, as some programs write a column
            of whole numbers with gaps.
        order: what comes first in dates with the year last.
        comma: whether interactions have their decimals after a comma.
    """

    whole: frozenset[str]
    order: dates.Order | None
    comma: bool


class Read(NamedTuple):
    """Good rows, as consumer/event/rules.py returns them, and the others."""

    table: pa.Table
    wrong: list[Wrong]


def survey(file: str, rows: FileReader, roles: Roles, form: str | None) -> Survey:
    """Read the file as far as it is needed to know.

    Raises:
        FileError: nothing tells whether the day or the month is first.
    """
    whole = {roles.user, roles.item} if rows.untyped else set()
    filled: set[str] = set()
    dated = form is None and roles.timestamp is not None
    example, order = None, None
    commas = DecimalCommas() if roles.interaction is not None else None
    for block in rows.blocks(roles):
        whole = {name for name in whole if _all_whole(block.columns[name])}
        filled |= {name for name in whole if _some(block.columns[name])}
        if dated and roles.timestamp is not None:
            order, example, dated = _order(block.columns[roles.timestamp], example)
        if commas is not None and roles.interaction is not None:
            commas.look(block.columns[roles.interaction])
        if not whole and not dated and (commas is None or commas.decided):
            break
    if example is not None and order is None:
        raise FileError(
            f"{file}: dates such as {visible(example, 40)} do not tell whether the day or the "
            "month is first; say it with --timestamp-format, as in '%m/%d/%Y %H:%M'"
        )
    return Survey(frozenset(whole & filled), order, commas is not None and commas.found)


def events(
    file: str, rows: FileReader, roles: Roles, known: Survey, form: str | None, found: Found
) -> Iterator[Read]:
    """The events of a file, in its order; `found` is told what the times were.

    Raises:
        FileError: the file cannot be read on, or the type of a column cannot be right.
    """
    for block in rows.blocks(roles):
        yield _checked(file, block, roles, known, form, found)


def _checked(
    file: str, block: Block, roles: Roles, known: Survey, form: str | None, found: Found
) -> Read:
    columns = block.columns
    fields = {
        "user_id": _ids(columns[roles.user], roles.user in known.whole),
        "item_id": _ids(columns[roles.item], roles.item in known.whole),
    }
    reasons: dict[int, str] = {}
    if roles.type is not None:
        with _named(file, roles.type):
            fields["type"] = _labels(columns[roles.type])
    if roles.interaction is not None:
        with _named(file, roles.interaction):
            numbers, wrong = _numbers(columns[roles.interaction], roles.interaction, known.comma)
        found.uncounted += numbers.null_count - len(wrong)
        fields["interaction"] = numbers
        reasons |= wrong
    if roles.timestamp is not None:
        with _named(file, roles.timestamp):
            fields["timestamp"], wrong = moments(columns[roles.timestamp], form, known.order, found)
        reasons |= wrong
    table, places = pa.table(fields), np.array(block.numbers, np.int64)
    refused = [Wrong(block.numbers[row], reason) for row, reason in reasons.items()]
    if refused:
        left = np.ones(len(table), np.bool_)
        left[list(reasons)] = False
        table, places = table.filter(pa.array(left)), places[left]
    checked = check(table)
    refused += [Wrong(int(places[bad.row]), _by_column(bad.reason, roles)) for bad in checked.bad]
    return Read(checked.table, sorted(block.wrong + refused))


def _ids(column: pa.Array, whole: bool) -> pa.Array:
    return pc.replace_substring_regex(column, r"\.0$", "") if whole else column


@contextmanager
def _named(file: str, column: str) -> Iterator[None]:
    """Put the names before a FileError."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{file}, column {visible(column)}: {error}") from error


def _labels(column: pa.Array) -> pa.Array:
    kind = column.type
    if not (pt.is_string(kind) or pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_null(kind)):
        raise FileError(f"{visible(str(kind))} holds no labels")
    return column.cast(pa.string())


def _numbers(column: pa.Array, name: str, comma: bool) -> tuple[pa.Array, dict[int, str]]:
    """A column as float64, null where nothing stands, and the reasons of rows without a number.

    Args:
        comma: whether decimals stand after a comma.

    Raises:
        FileError: the column's type holds no numbers.
    """
    kind, column = column.type, without_gaps(column)
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_null(kind):
        return column.cast(pa.float64(), safe=False), {}
    if not pt.is_string(kind):
        raise FileError(f"{visible(str(kind))} holds no numbers")
    if comma:
        column = pc.replace_substring(column, ",", ".")
    numeric = pc.match_substring_regex(column, NUMBER)
    wrong = pc.invert(numeric).fill_null(False)
    reasons = {
        row: f"{visible(name)} is {visible(column[row].as_py(), 40)}, which is no number"
        for row in np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist()
    }
    return pc.if_else(numeric, column, None).cast(pa.float64()), reasons


def _by_column(reason: str, roles: Roles) -> str:
    """A reason with the file's own name of the field; how to send it as a message is left out."""
    reason = reason.split("; send ")[0]
    for field, column in (
        ("user_id", roles.user), ("item_id", roles.item), ("interaction", roles.interaction),
        ("timestamp", roles.timestamp), ("type", roles.type),
    ):  # fmt: skip
        if column is not None and reason.startswith(f"{field} "):
            return visible(column) + reason.removeprefix(field)
    return reason


def _all_whole(column: pa.Array) -> bool:
    others = pc.invert(pc.match_substring_regex(column, WHOLE))
    return not pc.any(others).as_py()


def _some(column: pa.Array) -> bool:
    return bool(column.null_count < len(column))


def _order(column: pa.Array, example: str | None) -> tuple[dates.Order | None, str | None, bool]:
    """What comes first in the dates, a date with the year last, and whether to look further."""
    if not pt.is_string(column.type):
        return None, None, False
    texts = without_gaps(column).unique().drop_null().to_pylist()
    for text in texts:
        if order := dates.order_of(text):
            return order, text, False
        if example is None and dates.year_last(text):
            example = text
    return None, example, example is not None or not texts
