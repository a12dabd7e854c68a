"""Sends the interactions of files to Kafka, in bulk messages or in one message each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.event import arrow as bulk
from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher, partition_of
from streamgcn.files.load import Loaded

Send = Callable[[Publisher, str, Loaded, int], Iterator[int]]
ROWS = 10_000  # of one message, at most
BYTES = 800_000  # of one message; a broker takes 1 MiB if not told otherwise


def one_by_one(publisher: Publisher, topic: str, loaded: Loaded, now_ms: int) -> Iterator[int]:
    """A JSON message for each row, keyed by its user; yields the number of rows sent.

    Raises:
        StreamError: the broker does not take one.
    """
    sent = 0
    for block in loaded.blocks(now_ms):
        times = pc.divide(block["timestamp"].cast(pa.int64()), 1000).to_pylist()
        fields = [block[name].to_pylist() for name in ("user_id", "item_id", "interaction", "type")]
        for user, item, interaction, kind, ms in zip(*fields, times, strict=True):
            publisher.send(topic, encode(Event(user, item, interaction, ms, kind)), user.encode())
            sent += 1
            if sent % 1000 == 0:
                yield sent
    publisher.flush()
    yield sent


def in_bulk(publisher: Publisher, topic: str, loaded: Loaded, now_ms: int) -> Iterator[int]:
    """Arrow messages of many rows; yields the number of rows sent.

    A message has only users of its own partition, the one that a key would have led each to, so
    that a user's events stay in one partition and in order, however they were published.

    Raises:
        StreamError: the broker does not take one.
    """
    partitions = publisher.partitions(topic)
    sent = 0
    for block in loaded.blocks(now_ms):
        users = block["user_id"].combine_chunks().dictionary_encode()
        keys = users.dictionary.to_pylist()
        of_user = np.array([partition_of(key.encode(), len(partitions)) for key in keys])
        of_row = of_user[users.indices.to_numpy()]
        for partition in partitions:
            _send(publisher, topic, partition, block.filter(pa.array(of_row == partition)))
        publisher.flush()
        sent += len(block)
        yield sent


def _send(publisher: Publisher, topic: str, partition: int, rows: pa.Table) -> None:
    for begin in range(0, len(rows), ROWS):
        part = rows.slice(begin, ROWS)
        value = bulk.encode(part)
        if len(value) > BYTES and len(part) > 1:
            half = len(part) // 2
            _send(publisher, topic, partition, part.slice(0, half))
            _send(publisher, topic, partition, part.slice(half))
        else:
            publisher.send(topic, value, None, bulk.HEADERS, partition)
