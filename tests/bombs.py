"""Messages of at most 10 MiB that are made to take memory, and what a process takes for each.

python -m tests.bombs KIND FILE     what a process takes for the bytes in the file, as KIND says
"""

from __future__ import annotations

import logging
import mmap
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from kafka import TopicPartition
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from consumer.edge.store import EdgeStore
from consumer.event import arrow
from consumer.ingest.batch import Batch
from consumer.ingest.commit import Writer
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.decode import Rejected, events, rows
from consumer.ingest.letters import Forget
from consumer.ingest.loop import Ingest
from consumer.ingest.stretches import MESSAGE_BYTES
from consumer.kafka.client import Message
from consumer.kafka.member import POLL_RECORDS
from consumer.kafka.records import _PartitionRecords
from consumer.settings import ConsumerSettings
from tests.fake_topic import TOPIC, FakeReader, FakeTopic
from tests.memory import memory

BIG = 9_400_000  # bytes
POLLED = 30  # messages of a poll


def encode(table: pa.Table, compression: str | None = None, chunk: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return bytes(sink.getvalue())


def ids(n: int) -> dict[str, pa.Array]:
    numbers = pa.array(np.arange(n))
    return {"user_id": numbers, "item_id": numbers}


def repeated(text: bytes, n: int) -> pa.Array:
    """A dictionary of one long text, n times."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array([text.decode()]))


def bad_rows_beside_a_large_dictionary() -> bytes:
    columns = ids(2_000) | {"more": repeated(b"x" * 500_000, 2_000), "timestamp": [5] * 2_000}
    return encode(pa.table(columns), "zstd")


def bad_rows_of_one_long_id() -> bytes:
    columns = ids(100_000) | {"user_id": repeated(b"x" * BIG, 100_000)}
    return encode(pa.table(columns))


def a_few_bad_rows_of_one_long_id() -> bytes:
    users = pa.DictionaryArray.from_arrays(
        pa.array(np.arange(200) % 4 == 0).cast(pa.int8()), pa.array(["u", "x" * BIG])
    )
    return encode(pa.table(ids(200) | {"user_id": users}))


def an_ignored_column_of_two_gigabytes() -> bytes:
    zeros = mmap.mmap(-1, 2**31, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    width = 2**31 // 1_000
    column = pa.Array.from_buffers(pa.binary(width), 1_000, [None, pa.py_buffer(zeros)])
    return encode(pa.table(ids(1_000) | {"more": column}), "zstd")


def an_id_of_sixty_megabytes() -> bytes:
    users = pa.array(["x" * 60_000_000, *map(str, range(999))], pa.large_string())
    return encode(pa.table(ids(1_000) | {"user_id": users}), "zstd")


def compressed_ids_up_to_the_bound() -> bytes:
    users = pa.array(["x" * 250] * 100_000)
    return encode(pa.table({"user_id": users, "item_id": users}), "zstd")


def long_dictionary_values_in_every_row() -> bytes:
    users = repeated(b"x" * 256, 100_000)
    columns = {"user_id": users, "item_id": users, "type": repeated(b"t" * 64, 100_000)}
    return encode(pa.table(columns))


def views_of_one_long_text() -> bytes:
    data = pa.py_buffer(b"x" * BIG)
    view = struct.pack("<i4sii", BIG, b"xxxx", 0, 0) * 20_000
    users = pa.Array.from_buffers(pa.string_view(), 20_000, [None, pa.py_buffer(view), data])
    return encode(pa.table(ids(20_000) | {"user_id": users}))


def a_dictionary_that_grows_with_each_batch() -> bytes:
    users = [pa.array([f"{n}-{'x' * 90}" for n in range(end)]) for end in range(100, 15_100, 100)]
    pieces = [
        pa.DictionaryArray.from_arrays(pa.array(np.arange(len(u) - 100, len(u))), u) for u in users
    ]
    table = pa.table({"user_id": pa.chunked_array(pieces)})
    return encode(table.append_column("item_id", pa.chunked_array(pieces)))


def very_many_batches() -> bytes:
    return encode(pa.table(ids(30_000)), chunk=1)


def very_many_columns() -> bytes:
    return encode(pa.table(ids(1) | {f"c{n}": pa.nulls(1, pa.int8()) for n in range(50_000)}))


def rows_that_no_byte_stands_for() -> bytes:
    users = pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 2], pa.int32()), pa.array(["u"]))
    return encode(pa.table({"user_id": users, "item_id": users}))


def an_array_of_tiny_events() -> bytes:
    return b"[" + b",".join([b'{"user_id":1}'] * (MESSAGE_BYTES // 14 - 1)) + b"]"


def an_array_of_empty_objects() -> bytes:
    return b"[" + b",".join([b"{}"] * (MESSAGE_BYTES // 3 - 1)) + b"]"


def an_array_of_small_texts() -> bytes:
    return b"[" + b",".join(b'{"user_id":"%x"}' % n for n in range(450_000)) + b"]"


def nothing_but_brackets() -> bytes:
    return b"[" * MESSAGE_BYTES


def lists_in_an_ignored_field() -> bytes:
    return b'{"user_id":"u","item_id":"i","more":[%s]}' % b",".join(
        [b"[]"] * (MESSAGE_BYTES // 3 - 20)
    )


def a_number_of_ten_million_digits() -> bytes:
    return b'{"user_id":"u","item_id":"i","timestamp":%s}' % (b"9" * BIG)


MAKERS: list[Callable[[], bytes]] = [
    bad_rows_beside_a_large_dictionary,
    bad_rows_of_one_long_id,
    a_few_bad_rows_of_one_long_id,
    an_ignored_column_of_two_gigabytes,
    an_id_of_sixty_megabytes,
    compressed_ids_up_to_the_bound,
    long_dictionary_values_in_every_row,
    views_of_one_long_text,
    a_dictionary_that_grows_with_each_batch,
    very_many_batches,
    very_many_columns,
    rows_that_no_byte_stands_for,
    an_array_of_tiny_events,
    an_array_of_empty_objects,
    an_array_of_small_texts,
    nothing_but_brackets,
    lists_in_an_ignored_field,
    a_number_of_ten_million_digits,
]


class Taken(msgspec.Struct):
    """What taking it came to."""

    bytes: int  # added to the memory of the process at the worst moment
    events: int
    letters: int
    letter_bytes: int
    reason: str  # of the first letter


def take_message(value: bytes) -> Taken:
    """Take a message as the consumer does, and then as serving does."""
    bulk = not value.startswith((b"[", b"{"))
    message = Message("t", 0, 0, -1, None, value, arrow.HEADERS if bulk else [])
    rows([message._replace(value=b'{"user_id":"u","item_id":"i"}', headers=[])])  # all is loaded
    before = memory("VmRSS")
    batch = Batch()
    rejected = batch.take([message], None, 0)
    size = sum(len(each.value or b"") for each in rejected)
    del batch
    found = sum(1 for _ in events(rows([message])[0]))
    reason = rejected[0].reason if rejected else ""
    return Taken(memory("VmHWM") - before, found, len(rejected), size, reason)


def take_batch(data: bytes) -> Taken:
    """Read a record batch, one poll after another, as the client does."""
    before = memory("VmRSS")
    records = _PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(data))
    found = 0
    while records:
        found += len(records.take(POLL_RECORDS))
    return Taken(memory("VmHWM") - before, found, 0, 0, "")


class _Letters(DeadLetters):
    """Stands for the topic of dead letters."""

    count = size = 0
    reason = ""

    def put(self, noted: list[Rejected | Forget]) -> None:
        for each in noted:
            assert isinstance(each, Rejected)
            self.count += 1
            self.size += len(each.value or b"")
            self.reason = self.reason or each.reason
        noted.clear()

    def close(self) -> None: ...


def take_poll(value: bytes) -> Taken:
    """Take and store the same message POLLED times, all in one poll, as a consumer does."""
    topic = FakeTopic(1)
    for _ in range(POLLED):
        topic.send(0, value, arrow.HEADERS)
    reader = FakeReader(topic, POLLED)
    reader.assign(0)
    with tempfile.TemporaryDirectory() as folder:
        settings, stop = ConsumerSettings(edge_store=folder, kafka_topic=TOPIC), threading.Event()
        store, looked_at, written = (EdgeStore.begin(folder, TOPIC) for _ in range(3))
        letters = _Letters(settings)
        writer = Writer(written, letters, logging.getLogger("bombs"))
        before = memory("VmRSS")
        ingest = Ingest(settings, stop, reader, looked_at, writer)
        thread = threading.Thread(target=ingest.run)
        thread.start()
        while thread.is_alive() and store.next_offset(0) != POLLED:
            time.sleep(0.1)
        stop.set()
        thread.join()
        peak = memory("VmHWM")
        return Taken(peak - before, store.count(), letters.count, letters.size, letters.reason)


def rows_of_long_ids_in_a_small_message() -> bytes:
    users = repeated(b"x" * 256, 100_000)
    columns = {"user_id": users, "item_id": users, "type": repeated(b"t" * 64, 100_000)}
    return encode(pa.table(columns), "zstd")


def long_letters_of_a_small_message() -> bytes:
    which = pa.array((np.arange(199) % 2 == 0).astype(np.int8))
    users = pa.DictionaryArray.from_arrays(which, pa.array(["u", "x" * 100_000]))
    return encode(pa.table(ids(199) | {"user_id": users}), "zstd")


def gzip_batch_of_large_messages() -> bytes:
    builder = MemoryRecordsBuilder(2, DefaultRecordBatch.CODEC_GZIP, 2**31)
    for _ in range(30):
        builder.append(None, b"k", b"x" * BIG)
    builder.close()
    return bytes(builder.buffer())


if __name__ == "__main__":
    take = {"message": take_message, "batch": take_batch, "poll": take_poll}[sys.argv[1]]
    sys.stdout.write(msgspec.json.encode(take(Path(sys.argv[2]).read_bytes())).decode())
