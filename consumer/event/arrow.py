"""Many events in one Kafka message: an Arrow IPC stream with the event's columns.

Other columns are never decoded. A wrong row is rejected alone, a wrong schema the whole message.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from consumer.event import rules
from consumer.event.arrow_bounds import check_bounds, check_views
from consumer.event.errors import EventError
from process.text import visible

CONTENT_TYPE = b"application/vnd.apache.arrow.stream"
HEADERS = [("content-type", CONTENT_TYPE)]


def is_bulk(headers: Any) -> bool:
    """Whether the headers of a message say that it is an Arrow IPC stream."""
    return ("content-type", CONTENT_TYPE) in headers


def encode(rows: pa.Table) -> bytes:
    """The Arrow IPC stream of a table that has columns of the event."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def read(value: bytes) -> pa.Table:
    """The columns of the event in a bulk message, of one chunk each, as they were sent.

    Raises:
        EventError: it is no Arrow IPC stream, has no rows, too many rows or too many bytes, lacks a
            column or has one of a type that cannot be right.
    """
    try:
        check_bounds(value)
        with pa.ipc.open_stream(value) as reader:
            schema = reader.schema
        rules.check(schema.empty_table())  # before columns of other types are decoded
        wanted = [at for at, name in enumerate(schema.names) if name in rules.NAMES]
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        with pa.ipc.open_stream(value, options=options) as reader:
            table = reader.read_all()
        table.validate()
        check_views(table)
        table.validate(full=True)
    except (pa.ArrowException, struct.error, OSError, UnicodeDecodeError) as error:
        why = visible(str(error), 200)
        raise EventError(f"not an Arrow IPC stream of events: {why}") from None
    if not table.num_rows:
        raise EventError("the message has no rows; send at least one")
    return table.combine_chunks()


def alone(table: pa.Table, row: int) -> bytes:
    """One row as an Arrow IPC stream of its own, however large the dictionaries are beside it."""
    columns = {name: _alone(table.column(name).chunk(0), row) for name in table.schema.names}
    return encode(pa.table(columns))


def _alone(column: pa.Array, row: int) -> pa.Array:
    if pt.is_dictionary(column.type):
        number = column.indices[row].as_py()
        if number is None:
            return pa.nulls(1, column.type.value_type)
        column, row = column.dictionary, number
    value = column.slice(row, 1)
    return value.cast(pa.large_string()) if pt.is_string_view(value.type) else value
