"""The command `publish`: a file's interactions to Kafka, in bulk or one message each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from consumer.event import arrow as bulk
from consumer.event.json import encode
from consumer.kafka.publisher import Publisher, partition_of
from streamgcn import files

BLOCK = 200_000  # rows that are split by partition together
ROWS = 10_000  # of one message, at most
BYTES = 800_000  # of one message; a broker takes 1 MiB if not told otherwise


def one_by_one(publisher: Publisher, topic: str, frame: pd.DataFrame, now_ms: int) -> Iterator[int]:
    """A JSON message for each row, keyed by its user; yields the number of rows sent.

    Raises:
        StreamError: the broker does not take one.
    """
    for sent, event in enumerate(files.events(frame, now_ms), 1):
        publisher.send(topic, encode(event), event.user_id.encode())
        if sent % 1000 == 0:
            yield sent
    publisher.flush()
    yield len(frame)


def in_bulk(publisher: Publisher, topic: str, frame: pd.DataFrame) -> Iterator[int]:
    """Arrow messages of many rows; yields the number of rows sent.

    A message has only users of its own partition, the one that a key would have led each to, so
    that a user's events stay in one partition and in order, however they were published.

    Raises:
        StreamError: the broker does not take one.
    """
    table = files.rows(frame)
    if "timestamp" not in frame:
        table = table.drop_columns(["timestamp"])  # the time of its arrival, then
    partitions = publisher.partitions(topic)
    for begin in range(0, len(table), BLOCK):
        block = table.slice(begin, BLOCK)
        users = block["user_id"].combine_chunks().dictionary_encode()
        keys = users.dictionary.to_pylist()
        of_user = np.array([partition_of(key.encode(), len(partitions)) for key in keys])
        of_row = of_user[users.indices.to_numpy()]
        for partition in partitions:
            _send(publisher, topic, partition, block.filter(pa.array(of_row == partition)))
        publisher.flush()
        yield begin + len(block)


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
