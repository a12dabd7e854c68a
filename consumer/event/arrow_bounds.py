"""What an Arrow IPC stream would expand to, read off the metadata before anything is expanded.

A few kilobytes can stand for gigabytes: by compression, by a dictionary that is read again with
each record batch, by a count of rows that no byte stands for. The metadata is a flatbuffer
(Message.fbs of Apache Arrow), of which four fields are needed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from consumer.event.columns import view_lengths
from consumer.event.errors import EventError

ROWS = 100_000  # at most, in one message
EXPANDED_BYTES = 32 * 1024 * 1024  # of all columns, also those that are not of the event
DICTIONARY_BYTES = 64 * 1024 * 1024  # of dictionaries, counted with each record batch
_MESSAGE_HEADER, _DICTIONARY_DATA = 2, 1  # fields by number
_BATCH_LENGTH, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3


class _Block(NamedTuple):
    """A record batch or a dictionary."""

    rows: int
    bytes: int  # uncompressed
    is_dictionary: bool


def check_bounds(value: bytes) -> None:
    """Refuse a stream that is too large once it is expanded.

    Raises:
        EventError: it is.
        pa.ArrowException, struct.error: it is no Arrow IPC stream.
    """
    rows = expanded = dictionaries = read_again = 0
    for block in _blocks(value):
        expanded += block.bytes
        if block.is_dictionary:
            dictionaries += block.bytes
        else:
            rows += block.rows
            read_again += dictionaries
        if not 0 <= rows <= ROWS:
            raise EventError(f"the message has more than {ROWS} rows; send fewer in each")
        if expanded > EXPANDED_BYTES:
            raise EventError(
                f"the message expands to more than {EXPANDED_BYTES} bytes; send fewer rows in "
                "each, and no other columns than those of the event"
            )
        if read_again > DICTIONARY_BYTES:
            raise EventError(
                f"the dictionaries of the message, read again for each of its record batches, are "
                f"more than {DICTIONARY_BYTES} bytes; send larger record batches"
            )


def check_views(table: pa.Table) -> None:
    """Refuse views that together show more than EXPANDED_BYTES, as many may show the same bytes.

    Raises:
        EventError: they do.
    """
    shown = 0
    for column in table.columns:
        for chunk in column.chunks:
            values = chunk.dictionary if pt.is_dictionary(chunk.type) else chunk
            if pt.is_string_view(values.type):
                shown += int(np.maximum(view_lengths(values), 0).sum(dtype=np.int64))
    if shown > EXPANDED_BYTES:
        raise EventError(f"the views of the message show more than {EXPANDED_BYTES} bytes")


def _blocks(value: bytes) -> Iterator[_Block]:
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(value))
    for message in iter(lambda: _next(reader), None):
        if message.type not in ("record batch", "dictionary"):
            continue
        metadata, body = message.metadata.to_pybytes(), message.body
        header = _follow(metadata, _field(metadata, _root(metadata), _MESSAGE_HEADER))
        is_dictionary = message.type == "dictionary"
        if is_dictionary:
            header = _follow(metadata, _field(metadata, header, _DICTIONARY_DATA))
        at = _field(metadata, header, _BATCH_LENGTH)
        rows = struct.unpack_from("<q", metadata, at)[0] if at else 0
        compressed = bool(_field(metadata, header, _BATCH_COMPRESSION))
        at = _field(metadata, header, _BATCH_BUFFERS)
        sizes = _buffers(metadata, _follow(metadata, at), body, compressed) if at else iter(())
        yield _Block(rows, sum(sizes), is_dictionary)


def _next(reader: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _buffers(metadata: bytes, vector: int, body: pa.Buffer, compressed: bool) -> Iterator[int]:
    """Uncompressed bytes of each buffer; a compressed one begins with this number."""
    (count,) = struct.unpack_from("<I", metadata, vector)
    for n in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * n)
        if compressed and length:
            (claimed,) = struct.unpack_from("<q", body, offset)
            length = length if claimed == -1 else claimed  # -1: it is not compressed after all
        if length < 0:
            raise EventError("not an Arrow IPC stream of events: a buffer has a negative length")
        yield length


def _root(metadata: bytes) -> int:
    return int(struct.unpack_from("<I", metadata, 0)[0])


def _follow(metadata: bytes, at: int) -> int:
    return int(at + struct.unpack_from("<I", metadata, at)[0])


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where the field of a flatbuffer's table is, 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)
    return int(table + offset) if offset else 0
