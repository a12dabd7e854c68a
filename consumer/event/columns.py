"""One column of an event's fields, of any type that it may come in, as strings, numbers or times.

What a value must be beyond the type of its column is asked in rules.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event import times
from consumer.event.errors import SHOWN, EventError
from process.text import visible

Mask = npt.NDArray[np.bool_]


class Text(NamedTuple):
    """A column as strings."""

    given: pa.Array  # as it came
    values: pa.Array  # strings; null where `given` is null, or too short or too long
    wrong: Mask  # too short or too long


class Times(NamedTuple):
    """A column as epoch milliseconds."""

    given: pa.Array  # as it came
    values: times.Milliseconds  # 0 where none is given, or a wrong one
    wrong: Mask


def read_ids(given: pa.Table | pa.RecordBatch, name: str, most: int) -> Text:
    """Ids of 1 to `most` bytes; integers are written as text.

    Raises:
        EventError: the column is missing, is there twice, or has neither strings nor integers.
    """
    if name not in given.schema.names:
        there = visible(", ".join(given.schema.names), SHOWN) or "none"
        raise EventError(f"column {name} is missing; there are: {there}")
    return _as_text(_column(given, name), name, 1, most, "strings or integers", integers=True)


def read_text(given: pa.Table | pa.RecordBatch, name: str, most: int) -> Text:
    """Strings of at most `most` bytes; all null where there is no such column.

    Raises:
        EventError: the column is there twice, or has no strings.
    """
    return _as_text(_column(given, name), name, 0, most, "strings")


def read_numbers(given: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    """Numbers, float64 [rows], 1 where none is given or there is no such column.

    Raises:
        EventError: the column is there twice, or has no numbers.
    """
    column = _column(given, name)
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode() if not is_text(column.type.value_type) else column
    kind = column.type
    if not (pt.is_null(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
        raise _wrong_type(name, column, "numbers")
    floats = column.cast(pa.float64(), safe=False).fill_null(1.0)
    numbers: npt.NDArray[np.float64] = floats.to_numpy(zero_copy_only=False)
    return numbers


def read_times(given: pa.Table | pa.RecordBatch, name: str) -> Times:
    """Times of any form that times.py takes; none is given where there is no such column.

    Raises:
        EventError: the column is there twice, or is of a type that tells no time.
    """
    column = _column(given, name)
    send = "timestamps with a zone, numbers or strings"
    kind = column.type.value_type if pt.is_dictionary(column.type) else column.type
    if is_text(kind):
        text = _as_text(column, name, 0, times.TEXT_BYTES, send)
        values, told = text.values, column
        null = nulls(values) & ~text.wrong
    else:
        values = told = column.dictionary_decode() if pt.is_dictionary(column.type) else column
        null = nulls(values)
    moments = times.of_column(values)
    if moments is None:
        raise _wrong_type(name, column, send)
    return Times(told, moments, (moments == 0) & ~null)


def nulls(column: pa.Array) -> Mask:
    """Which values are null."""
    mask: Mask = column.is_null().to_numpy(zero_copy_only=False)
    return mask


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are strings, in any of Arrow's three forms."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


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


def _column(given: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    count = given.schema.names.count(name)
    if count > 1:
        raise EventError(f"column {name} is there {count} times; send it once")
    if not count:
        return pa.nulls(given.num_rows)
    column = given.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _as_text(
    column: pa.Array, name: str, least: int, most: int, send: str, integers: bool = False
) -> Text:
    """A column as strings of `least` to `most` bytes.

    Lengths are measured before a dictionary or views are expanded, which could be to any size.
    """
    of_dictionary = pt.is_dictionary(column.type)
    values = column.dictionary if of_dictionary else column
    if pt.is_null(values.type) or (integers and pt.is_integer(values.type)):
        values = values.cast(pa.string())
    if pt.is_string_view(values.type):
        values, long = _cut_views(values, most)
    elif is_text(values.type):
        long = pc.greater(pc.binary_length(values), most).fill_null(False)
        values = pc.if_else(long, None, values).cast(pa.string())
    else:
        raise _wrong_type(name, column, send)
    short = pc.less(pc.binary_length(values), least).fill_null(False)
    wrong = pc.or_(long, short)
    values = pc.if_else(short, None, values)
    if of_dictionary:
        values, wrong = values.take(column.indices), wrong.take(column.indices).fill_null(False)
    return Text(column, values, wrong.to_numpy(zero_copy_only=False))


def _wrong_type(name: str, column: pa.Array, send: str) -> EventError:
    return EventError(f"column {name} is of type {visible(str(column.type), SHOWN)}; send {send}")
