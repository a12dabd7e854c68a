"""A compressed batch of Kafka, decompressed piece by piece: a megabyte can stand for a gigabyte."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from kafka import codec
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch

RECORD_BYTES = 64 * 1024 * 1024  # a longer record is not read
PIECE = 1024 * 1024  # of a batch, decompressed at a time


def pieces(kind: int, data: bytes) -> Iterator[bytes]:
    """A compressed batch, decompressed in pieces of about PIECE bytes.

    Args:
        kind: the codec, as in DefaultRecordBatch.

    Raises:
        CorruptRecordError: a length in it cannot be.
    """
    if kind == DefaultRecordBatch.CODEC_SNAPPY:
        yield from map(_snappy, _snappy_blocks(data))
        return
    source = io.BytesIO(data)
    if kind == DefaultRecordBatch.CODEC_GZIP:
        reader: Any = gzip.GzipFile(fileobj=source)
    elif kind == DefaultRecordBatch.CODEC_LZ4:
        reader = codec.lz4.LZ4FrameFile(source)
    else:
        reader = codec.zstd.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    with reader:
        yield from iter(partial(reader.read, PIECE), b"")


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """Java's clients write blocks with a length before each; others one block without."""
    if not codec._detect_xerial_stream(data):
        yield data
        return
    at = 16
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        if length <= 0:
            raise CorruptRecordError(f"a block of {length} bytes")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _snappy(block: bytes) -> bytes:
    """A block decompressed; it begins with the length that it will have."""
    length = shift = 0
    for byte in block[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > RECORD_BYTES:
        raise CorruptRecordError(f"a block of {length} bytes; {RECORD_BYTES} at most are read")
    return bytes(codec.snappy.decompress(block))
