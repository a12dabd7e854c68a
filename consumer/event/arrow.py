"""Many events in one Kafka message: an Arrow IPC stream of the event's columns.

Columns as in a JSON event: user_id and item_id strings or integers (dictionaries too), interaction
any number, timestamp with a time zone or epoch milliseconds, type a string. Only the first two must
be there; a null is the default. A wrong row is rejected alone, a wrong schema the whole message.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event.json import (
    FIRST_MS,
    FORGET,
    ID_BYTES,
    LARGEST,
    NUMBER,
    TYPE_BYTES,
    EventError,
    last_ms,
)

CONTENT_TYPE = b"application/vnd.apache.arrow.stream"
HEADERS = [("content-type", CONTENT_TYPE)]
ROWS = 100_000  # at most, in one message
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class BadRow(NamedTuple):
    """A row that is no event: its number from 0, why, and the row alone as an Arrow IPC stream."""

    number: int
    reason: str
    value: bytes


def is_bulk(headers: Any) -> bool:
    """Whether the headers of a message say that it is an Arrow IPC stream."""
    return ("content-type", CONTENT_TYPE) in headers


def encode(rows: pa.Table) -> bytes:
    """The Arrow IPC stream of a table that has columns of the event."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def decode(value: bytes, message_ms: int) -> tuple[pa.Table, list[BadRow]]:
    """Events of a bulk message.

    Args:
        value: the Arrow IPC stream.
        message_ms: the Kafka message's own timestamp, epoch milliseconds, for rows without one.

    Returns:
        The good rows as columns user_id, item_id, type (string), interaction (float64) and
        timestamp (int64, epoch milliseconds), and the bad ones.

    Raises:
        EventError: it is no Arrow IPC stream, has too many rows, lacks a column or has one of a
            wrong type, or all of its rows are bad.
    """
    tables: list[pa.Table] = []
    bad: list[BadRow] = []
    seen = 0
    try:
        with pa.ipc.open_stream(value) as reader:
            for batch in reader:
                if seen + len(batch) > ROWS:
                    raise EventError(f"the message has more than {ROWS} rows; send fewer in each")
                batch.validate(full=True)
                tables.append(_decode(batch, message_ms, seen, bad))
                seen += len(batch)
    except EventError:
        raise
    except Exception as error:  # of what foreign bytes can do to a decoder there is no list
        raise EventError(f"not an Arrow IPC stream of events: {error}") from None
    if bad and len(bad) == seen:
        raise EventError(f"all {seen} rows are bad; row {bad[0].number}: {bad[0].reason}")
    if not seen:
        raise EventError("the message has no rows; send at least one")
    return pa.concat_tables(tables), bad


def _decode(batch: pa.RecordBatch, message_ms: int, first: int, bad: list[BadRow]) -> pa.Table:
    types, wrong_type = _text(batch, "type", 0, TYPE_BYTES)
    types = types.fill_null("interaction")
    forgets = pc.equal(types, FORGET).to_numpy(zero_copy_only=False)
    users, wrong_user = _text(batch, "user_id", 1, ID_BYTES)
    items, wrong_item = _text(batch, "item_id", 1, ID_BYTES)
    interactions = _numbers(batch, "interaction", 1.0)
    times = _numbers(batch, "timestamp", message_ms)
    checks = [
        (wrong_user, f"user_id is missing, empty or longer than {ID_BYTES} bytes"),
        (wrong_item & ~forgets, f"item_id is missing, empty or longer than {ID_BYTES} bytes"),
        (wrong_type, f"type is longer than {TYPE_BYTES} bytes"),
        (~(np.abs(interactions) <= LARGEST), f"interaction is out of range; {NUMBER}"),
        (
            ~((times >= FIRST_MS) & (times <= last_ms())),
            "timestamp is not a number, more than a day ahead, or before the year 1",
        ),
    ]
    good = np.ones(len(batch), np.bool_)
    for wrong, reason in checks:
        bad += (
            BadRow(first + row, reason, _alone(batch, row))
            for row in np.flatnonzero(wrong & good).tolist()
        )
        good &= ~wrong
    items = pc.if_else(forgets, "", items) if forgets.any() else items
    columns = {
        "user_id": users,
        "item_id": items,
        "interaction": interactions,
        "type": types,
        "timestamp": np.where(good, times, 0).astype(np.int64),
    }
    table = pa.table(columns)
    return table if good.all() else table.filter(pa.array(good))


def _text(batch: pa.RecordBatch, name: str, least: int, most: int) -> tuple[pa.Array, Mask]:
    """A column as strings, null where `least` to `most` bytes are not kept, and a mask of those.

    Lengths are checked before a dictionary is expanded, which could be to any size.
    """
    if name not in batch.schema.names:
        if name == "type":
            return pa.nulls(len(batch), pa.string()), np.zeros(len(batch), np.bool_)
        raise EventError(f"column {name} is missing; there are {batch.schema.names}")
    column = batch[name]
    numbers = None
    if pt.is_dictionary(column.type):
        column, numbers = column.dictionary, column.indices
    if (pt.is_integer(column.type) and name != "type") or pt.is_string_view(column.type):
        column = column.cast(pa.string())
    if not (pt.is_string(column.type) or pt.is_large_string(column.type)):
        raise EventError(f"column {name} is of type {column.type}; send strings or integers")
    lengths = pc.binary_length(column)
    right = pc.and_(pc.greater_equal(lengths, least), pc.less_equal(lengths, most))
    column = pc.if_else(right, column, None).cast(pa.string())
    if numbers is not None:
        column, right = column.take(numbers), right.take(numbers)
    wrong = ~right.fill_null(name == "type").to_numpy(zero_copy_only=False)
    return column, wrong


def _numbers(batch: pa.RecordBatch, name: str, default: float) -> Floats:
    """A column as float64 [rows], `default` where it is null; milliseconds are exact in it."""
    if name not in batch.schema.names:
        return np.full(len(batch), default)
    column = batch[name]
    if name == "timestamp" and pt.is_timestamp(column.type):
        if column.type.tz is None:
            raise EventError("column timestamp has no time zone; send UTC or epoch milliseconds")
        column = column.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    if not (pt.is_integer(column.type) or pt.is_floating(column.type)):
        raise EventError(f"column {name} is of type {column.type}; send numbers")
    floats: Floats = column.cast(pa.float64(), safe=False).fill_null(default).to_numpy()
    return floats


def _alone(batch: pa.RecordBatch, row: int) -> bytes:
    """One row as it was sent, as an Arrow IPC stream."""
    schema = pa.schema([field.with_metadata(None) for field in batch.schema])
    return encode(pa.table([column.take([row]) for column in batch.columns], schema))
