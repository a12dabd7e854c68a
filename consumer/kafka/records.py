"""Reads the records of a fetch so that nothing a producer wrote can end the process or fill memory.

The client (kafka-python 3.0) does this in `Fetcher` and `DefaultRecordBatch`; here three things
differ:
- a header key that is no UTF-8 keeps its bytes (the client raises, again at every start);
- a batch that cannot be read (no codec, wrong checksum, damaged) becomes one message whose value is
  `Unreadable`, and what is behind it is read (the client raises, and stays where it is);
- a batch is decompressed piece by piece, and a poll ends once it holds TAKE_BYTES (the client
  decompresses whole batches, a megabyte of which can stand for a gigabyte).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import decode_varint

from consumer.kafka.decompress import PIECE, RECORD_BYTES, pieces
from process.text import visible

TAKE_BYTES = 16 * 1024 * 1024  # of keys, values and headers; a poll ends with the record after
REASON = 200  # characters of an error's text


class HeaderKey(str):
    """The key of a header that is no UTF-8: shown with escapes, sent on with its own bytes."""

    _raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """The key with these bytes."""
        made = super().__new__(cls, raw.decode(errors="backslashreplace"))
        made._raw = raw
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The bytes that were read, whatever the encoding."""
        del encoding, errors
        return self._raw


class Unreadable(bytes):
    """Stands in the place of a value: the client could not read the batch that it was in."""

    reason: str

    def __new__(cls, reason: str) -> Self:
        """No bytes, and why."""
        made = super().__new__(cls)
        made.reason = reason
        return made


def reading_client(**arguments: Any) -> KafkaConsumer:
    """A client that reads records in the way of this file."""
    client = KafkaConsumer(**arguments)
    client._fetcher.__class__ = _Fetcher
    return client


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client has no types
    """The records of one partition in one fetch."""

    limit = TAKE_BYTES  # of the next `take`
    taken = 0  # bytes of the last `take`
    next_fetch_offset: int

    def take(self, n: int | None = None) -> list[ConsumerRecord]:
        """The next records, `n` at most, up to `limit` bytes and the record that passes it."""
        self._maybe_raise_next_inline_exception()
        self.taken = 0
        records: list[ConsumerRecord] = []
        for record in islice(self.record_iterator, n):
            records.append(record)
            self.taken += (
                record.serialized_value_size
                + record.serialized_key_size
                + record.serialized_header_size
            )
            if self.taken >= self.limit:
                break
        return records

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, *deserializers: Any
    ) -> Iterator[ConsumerRecord]:
        batches = _Batches(records)
        while True:
            try:
                yield from super()._unpack_records(tp, batches, *deserializers)
                return
            except Exception as error:  # of what foreign bytes can do there is no list
                first = self.next_fetch_offset
                if batches.last is None:  # not even the beginning of the batch can be read
                    self.next_fetch_offset = first + 1
                    yield _placeholder(tp, first, first, error)
                    self.drain()
                    return
                first = max(first, batches.last.base_offset)
                self.next_fetch_offset = max(batches.last.next_offset, first + 1)
                yield _placeholder(tp, first, self.next_fetch_offset - 1, error)


class _Fetcher(Fetcher):  # type: ignore[misc]  # the client has no types
    PartitionRecords = _PartitionRecords

    def fetched_records(self, *arguments: Any, **named: Any) -> Any:
        """What was fetched, up to TAKE_BYTES of all partitions together."""
        self._left = TAKE_BYTES
        return super().fetched_records(*arguments, **named)

    def _append(
        self, drained: Any, part: _PartitionRecords, max_records: int, update_offsets: bool
    ) -> int:
        part.limit, part.taken = self._left, 0
        count: int = super()._append(drained, part, max_records, update_offsets)
        self._left -= part.taken
        return count if self._left > 0 else max_records  # as many as end the poll


class _Batches:
    """The batches of a fetch; `last` is the one given out last."""

    def __init__(self, records: MemoryRecords) -> None:
        self._records = records
        self.last: Any = None

    def next_batch(self) -> Any:
        self.last = None
        batch = self._records.next_batch()
        self.last = _Batch.of(batch) if isinstance(batch, DefaultRecordBatch) else batch
        return self.last


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # the client has no types
    """A batch that is decompressed while its records are read."""

    _buffer: bytearray
    _pos: int
    _decompressed: bool
    _pieces: Iterator[bytes] | None

    @classmethod
    def of(cls, batch: DefaultRecordBatch) -> Self:
        made = cls.__new__(cls)
        made._pieces = None
        for name in DefaultRecordBatch.__slots__:
            setattr(made, name, getattr(batch, name))
        return made

    def _maybe_uncompress(self) -> None:
        if not self._decompressed and self.compression_type != self.CODEC_NONE:
            self._assert_has_codec(self.compression_type)
            data = bytes(memoryview(self._buffer)[self._pos :])
            self._pieces = pieces(self.compression_type, data)
            self._buffer, self._pos = bytearray(), 0
        self._decompressed = True

    def __next__(self) -> DefaultRecord:
        if self._pieces is not None:
            self._fill()
        try:
            return super().__next__()
        except CorruptRecordError as error:
            if not isinstance(error.__context__, UnicodeDecodeError):
                raise
            return self._with_any_keys()

    def _fill(self) -> None:
        """Decompress until a whole record is there."""
        while self._pieces is not None and not self._has_record():
            del self._buffer[: self._pos]
            self._pos = 0
            for piece in self._pieces:
                self._buffer += piece
                if len(self._buffer) >= PIECE:
                    break
            else:
                self._pieces = None

    def _has_record(self) -> bool:
        try:
            length, start = decode_varint(self._buffer, self._pos)
        except IndexError:
            return False
        if length > RECORD_BYTES:
            raise CorruptRecordError(f"a record of {length} bytes; {RECORD_BYTES} at most are read")
        return bool(start + length <= len(self._buffer))

    def _with_any_keys(self) -> DefaultRecord:
        """The next record, as the client reads it, but for the keys of its headers."""
        buffer = self._buffer
        length, start = decode_varint(buffer, self._pos)
        _, at = decode_varint(buffer, start)  # attributes
        delta, at = decode_varint(buffer, at)
        offset, at = decode_varint(buffer, at)
        key, at = _bytes(buffer, at)
        value, at = _bytes(buffer, at)
        count, at = decode_varint(buffer, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(buffer, at)
            content, at = _bytes(buffer, at)
            headers.append((HeaderKey(name or b""), content))
        if at - start != length:
            raise CorruptRecordError(f"a record of {length} bytes holds {at - start}")
        self._pos = at
        self._next_record_index += 1
        kind = self.timestamp_type
        time = self.max_timestamp if kind == self.LOG_APPEND_TIME else self.first_timestamp + delta
        return DefaultRecord(length, self.base_offset + offset, time, kind, key, value, headers)


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    return (None, at) if length < 0 else (bytes(buffer[at : at + length]), at + length)


def _placeholder(tp: TopicPartition, first: int, last: int, error: Exception) -> ConsumerRecord:
    """One message for all that could not be read, at the last of the offsets."""
    why = visible(f"{type(error).__name__}: {error}", REASON)
    where = f"offset {first}" if first == last else f"offsets {first} to {last}"
    value = Unreadable(f"the client cannot read {where} of the partition: {why}")
    return ConsumerRecord(
        tp.topic, tp.partition, -1, last, -1, 0, None, value, [], None, -1, len(why), -1
    )
