"""The rules of an event, over columns: which rows are good, and what is wrong with each other one.

Whoever made the columns asks here: the decoders of JSON and of Arrow messages, and `publish` of a
file before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event import times
from process.errors import StreamGCNError
from process.text import visible

ID_BYTES = 256
TYPE_BYTES = 64
LARGEST = 1e12  # interaction: what is made of such numbers is still finite in float32
REMOVE = "remove"
FORGET = "forget"  # needs no item_id
# A message with this header forgets in its own partition alone; `streamgcn forget` sends one to
# each. In the columns such a row has HERE for an item.
HERE = "partition"
ONLY_HERE = (FORGET, HERE.encode())
DEFAULT = "interaction"  # the type of an event that gives none
NAMES = ("user_id", "item_id", "interaction", "timestamp", "type")
NUMBER = f"send a number from -{LARGEST:g} to {LARGEST:g}"  # what is said of a wrong interaction
SHOWN = 60  # characters of a foreign text in a reason
Mask = npt.NDArray[np.bool_]


class EventError(StreamGCNError):
    """A message is not a valid event; the text says why and what would be."""


class Bad(NamedTuple):
    """A row that is no event: its number from 0, and why; the reason has no control characters."""

    row: int
    reason: str


class Checked(NamedTuple):
    """The good rows, and what is wrong with the others."""

    table: pa.Table  # columns as `check` returns them
    rows: npt.NDArray[np.int64]  # number of each good row in what was given, ascending
    bad: list[Bad]  # ascending


def check(given: pa.Table | pa.RecordBatch) -> Checked:
    """Apply the rules to columns named as the fields of an event; others are not looked at.

    A null, or a column that is not there, means "not given". What Arrow says of the given arrays
    must be true (`validate(full=True)`).

    Args:
        given: user_id and item_id (strings or integers), interaction (any number), timestamp
            (numbers, strings, or timestamps with a zone: see times.py) and type (strings), or
            dictionaries of these. Only the first two must be there.

    Returns:
        The good rows as columns user_id, item_id (empty of a `forget`), type (string), interaction
        (float64) and timestamp (int64, epoch milliseconds, null where it was not given).

    Raises:
        EventError: a column is missing, is there twice, or is of a type that cannot be right.
    """
    n = given.num_rows
    users, items = _ids(given, "user_id"), _ids(given, "item_id")
    kinds = _text(_column(given, "type"), "type", 0, TYPE_BYTES)
    types = kinds.values.fill_null(DEFAULT)
    forgets = pc.equal(types, FORGET).to_numpy(zero_copy_only=False)
    interactions = _numbers(_column(given, "interaction"))
    moments = _moments(_column(given, "timestamp"))
    checks = [
        (_nulls(users.values), _by_value(users.given, partial(_no_id, "user_id"))),
        (_nulls(items.values) & ~forgets, _by_value(items.given, partial(_no_id, "item_id"))),
        (kinds.wrong, _by_value(kinds.given, partial(_too_long, "type", TYPE_BYTES))),
        (
            ~(np.abs(interactions) <= LARGEST),
            lambda row: f"interaction is {interactions[row]:g}; {NUMBER}",
        ),
        (moments.wrong, _by_value(moments.given, _no_time)),
    ]
    good = np.ones(n, np.bool_)
    bad: list[Bad] = []
    for wrong, why in checks:
        bad += (Bad(row, why(row)) for row in np.flatnonzero(wrong & good).tolist())
        good &= ~wrong
    columns = {
        "user_id": users.values,
        "item_id": pc.if_else(forgets, "", items.values) if forgets.any() else items.values,
        "type": types,
        "interaction": interactions,
        "timestamp": pa.array(moments.values, mask=moments.values == 0),
    }
    table = pa.table(columns)
    if bad:
        table = table.filter(pa.array(good))
    return Checked(table, np.flatnonzero(good), sorted(bad))


class _Text(NamedTuple):
    given: pa.Array
    values: pa.Array  # strings; null where `given` is null, or too short or too long
    wrong: Mask  # too short or too long


class _Moments(NamedTuple):
    given: pa.Array
    values: times.Milliseconds  # 0 where none is given, or a wrong one
    wrong: Mask


def _column(given: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    count = given.schema.names.count(name)
    if count > 1:
        raise EventError(f"column {name} is there {count} times; send it once")
    if not count:
        return pa.nulls(given.num_rows)
    column = given.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _ids(given: pa.Table | pa.RecordBatch, name: str) -> _Text:
    if name not in given.schema.names:
        there = visible(", ".join(given.schema.names), SHOWN) or "none"
        raise EventError(f"column {name} is missing; there are: {there}")
    return _text(_column(given, name), name, 1, ID_BYTES)


def _text(column: pa.Array, name: str, least: int, most: int) -> _Text:
    """A column as strings of `least` to `most` bytes.

    Lengths are measured before a dictionary or views are expanded, which could be to any size.
    """
    of_dictionary = pt.is_dictionary(column.type)
    values = column.dictionary if of_dictionary else column
    if pt.is_null(values.type) or (pt.is_integer(values.type) and name != "type"):
        values = values.cast(pa.string())
    if pt.is_string_view(values.type):
        values, long = _cut_views(values, most)
    elif _is_text(values.type):
        long = pc.greater(pc.binary_length(values), most).fill_null(False)
        values = pc.if_else(long, None, values).cast(pa.string())
    else:
        raise _wrong_type(name, column, "strings" if name == "type" else "strings or integers")
    short = pc.less(pc.binary_length(values), least).fill_null(False)
    wrong = pc.or_(long, short)
    values = pc.if_else(short, None, values)
    if of_dictionary:
        values, wrong = values.take(column.indices), wrong.take(column.indices).fill_null(False)
    return _Text(column, values, wrong.to_numpy(zero_copy_only=False))


def view_lengths(column: pa.Array) -> npt.NDArray[np.int32]:
    """The bytes that each view of a column shows; of a null they mean nothing."""
    return _views(column)[column.offset :, 0]


def _views(column: pa.Array) -> npt.NDArray[np.int32]:
    """Each view as four numbers, the first of which is its length; int32 [offset + rows, 4]."""
    buffer = column.buffers()[1] or b""
    return np.frombuffer(buffer, np.int32, 4 * (column.offset + len(column))).reshape(-1, 4)


def _cut_views(column: pa.Array, most: int) -> tuple[pa.Array, pa.Array]:
    """Views as strings, null where they are longer than `most` bytes, and a mask of these."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    long = (view_lengths(column) > most) & there
    views = _views(column).copy()
    views[column.offset :][long] = 0
    validity, _, *data = column.buffers()
    buffers = [validity, pa.py_buffer(views), *data]
    cut = pa.Array.from_buffers(column.type, len(column), buffers, offset=column.offset)
    return pc.if_else(pa.array(long), None, cut.cast(pa.string())), pa.array(long)


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    """Numbers, float64 [rows], 1 where none is given."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode() if not _is_text(column.type.value_type) else column
    kind = column.type
    if not (pt.is_null(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
        raise _wrong_type("interaction", column, "numbers")
    floats = column.cast(pa.float64(), safe=False).fill_null(1.0)
    numbers: npt.NDArray[np.float64] = floats.to_numpy(zero_copy_only=False)
    return numbers


def _moments(column: pa.Array) -> _Moments:
    kind = column.type.value_type if pt.is_dictionary(column.type) else column.type
    if _is_text(kind) or pt.is_string_view(kind):
        text = _text(column, "timestamp", 0, times.TEXT_BYTES)
        values, given = text.values, column
        null = _nulls(values) & ~text.wrong
    else:
        values = given = column.dictionary_decode() if pt.is_dictionary(column.type) else column
        null = _nulls(values)
    moments = times.of_column(values)
    if moments is None:
        raise _wrong_type("timestamp", column, "timestamps with a zone, numbers or strings")
    return _Moments(given, moments, (moments == 0) & ~null)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _nulls(column: pa.Array) -> Mask:
    mask: Mask = column.is_null().to_numpy(zero_copy_only=False)
    return mask


def _by_value(column: pa.Array, explain: Callable[[pa.Scalar], str]) -> Callable[[int], str]:
    """What is said of a row, by its value; once for each value of a dictionary, for it is long."""
    if not pt.is_dictionary(column.type):
        return lambda row: explain(column[row])
    values, numbers = column.dictionary, column.indices

    @cache
    def of_number(number: int | None) -> str:
        return explain(pa.scalar(None, values.type) if number is None else values[number])

    return lambda row: of_number(numbers[row].as_py())


def _no_id(name: str, given: pa.Scalar) -> str:
    if not given.is_valid:
        return f"{name} is missing; send a string or an integer"
    if not given.as_buffer().size:
        return f"{name} is empty; send 1 to {ID_BYTES} bytes"
    return _too_long(name, ID_BYTES, given)


def _too_long(name: str, most: int, given: pa.Scalar) -> str:
    return f"{name} is longer than {most} bytes: {visible(_beginning(given), SHOWN)}"


def _beginning(text: pa.Scalar) -> bytes:
    beginning: bytes = text.as_buffer()[: 4 * SHOWN + 4].to_pybytes()
    return beginning


def _no_time(given: pa.Scalar) -> str:
    if isinstance(given, pa.TimestampScalar):
        return times.why(given.value, given.type.unit)
    if _is_text(given.type) or pt.is_string_view(given.type):
        return times.why(_beginning(given).decode(errors="replace"))
    return times.why(given.as_py())


def _wrong_type(name: str, column: pa.Array, send: str) -> EventError:
    return EventError(f"column {name} is of type {visible(str(column.type), SHOWN)}; send {send}")
