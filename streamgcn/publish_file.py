"""The command `publish`: a file's interactions to Kafka, in bulk or one message each."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
import pyarrow as pa
import typer

from consumer.event import arrow as bulk
from consumer.event.json import encode
from consumer.kafka.publisher import Publisher, partition_of
from consumer.kafka.topics import wait_for_topics
from process.log import configure
from process.shutdown import stop_on_signals
from serving.settings import ServingSettings
from streamgcn import files
from streamgcn.file_options import (
    File,
    InteractionColumn,
    ItemColumn,
    TimestampColumn,
    TypeColumn,
    UserColumn,
)
from streamgcn.terminal import out, progress

BLOCK = 200_000  # rows that are split by partition together
ROWS = 10_000  # of one message, at most
BYTES = 800_000  # of one message; a broker takes 1 MiB if not told otherwise


def publish(
    file: File,
    user_column: UserColumn = "user_id",
    item_column: ItemColumn = "item_id",
    interaction_column: InteractionColumn = "interaction",
    timestamp_column: TimestampColumn = "timestamp",
    type_column: TypeColumn = "type",
    one_by_one: Annotated[
        bool, typer.Option("--json", help="One JSON message an event instead of bulk messages.")
    ] = False,
) -> None:
    """Publish the interactions of a file to Kafka.

    In bulk: thousands of rows in a message, each of users of one partition. With --json one message
    each, keyed by user, as an application would.
    """
    settings = ServingSettings.load()
    configure(settings.log_format)
    columns = files.Columns(
        user_column, item_column, interaction_column, timestamp_column, type_column
    )
    frame = files.read(file, columns)
    stop = stop_on_signals()
    wait_for_topics(settings, stop, logging.getLogger("publish"), "WRITE", None)
    publisher = Publisher(settings)
    started, sent = time.time(), 0
    if one_by_one:
        steps = _one_by_one(publisher, settings.kafka_topic, frame, int(started * 1000))
    else:
        steps = _in_bulk(publisher, settings.kafka_topic, frame)
    with progress("publishing", len(frame)) as bar:
        for sent in steps:
            bar(sent)
            if stop.is_set():
                break
        publisher.flush()
    publisher.close()
    seconds = time.time() - started
    out.print(f"Published {sent} events to {settings.kafka_topic} in {seconds:.1f} s.")
    if sent < len(frame):
        raise typer.Exit(130)


def _one_by_one(
    publisher: Publisher, topic: str, frame: pd.DataFrame, now_ms: int
) -> Iterator[int]:
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


def _in_bulk(publisher: Publisher, topic: str, frame: pd.DataFrame) -> Iterator[int]:
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
