"""The command `publish`: a file's interactions to Kafka, in bulk or one message each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from consumer.event import arrow as bulk
from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher, partition_of
from consumer.kafka.topics import wait_for_topics
from process.log import configure
from process.shutdown import Stopped, stop_on_signals
from serving.settings import ServingSettings
from streamgcn import file_options as given
from streamgcn.files.columns import Columns
from streamgcn.files.load import Loaded, load
from streamgcn.terminal import out, progress

Send = Callable[[Publisher, str, Loaded, int], Iterator[int]]
ROWS = 10_000  # of one message, at most
BYTES = 800_000  # of one message; a broker takes 1 MiB if not told otherwise


def publish(
    files: Annotated[
        list[str],
        typer.Argument(
            help="CSV and other separated text, JSON lines, JSON or Parquet, also compressed (gz, "
            "bz2, zst); patterns such as 'day-*.csv'; - for standard input."
        ),
    ],
    user_column: given.UserColumn = None,
    item_column: given.ItemColumn = None,
    interaction_column: given.InteractionColumn = None,
    timestamp_column: given.TimestampColumn = None,
    type_column: given.TypeColumn = None,
    columns: given.Names = "",
    separator: given.Separator = None,
    encoding: given.Encoding = None,
    timestamp_format: given.TimestampFormat = None,
    skip_invalid: given.SkipInvalid = False,
    one_by_one: Annotated[
        bool, typer.Option("--json", help="One JSON message an event instead of bulk messages.")
    ] = False,
) -> None:
    """Publish the interactions of files to Kafka, in the order of their times.

    Says which columns it reads. All rows are checked before anything is sent: if one is no event,
    nothing is published, unless --skip-invalid leaves it out.

    In bulk: thousands of rows in a message, each of users of one partition. With --json one message
    each, keyed by user, as an application would.
    """
    settings = ServingSettings.load()
    configure(settings.log_format)
    named = Columns(user_column, item_column, interaction_column, timestamp_column, type_column)
    options = given.options(named, columns, separator, encoding, timestamp_format, skip_invalid)
    given.end_by_interrupts()
    try:
        with load(files, options) as loaded:
            given.tell(loaded)
            stop = stop_on_signals()
            wait_for_topics(settings, stop, logging.getLogger("publish"), "WRITE", None)
            _publish(settings, loaded, _one_by_one if one_by_one else _in_bulk, stop)
    except Stopped:
        raise typer.Exit(130) from None


def _publish(settings: ServingSettings, loaded: Loaded, send: Send, stop: threading.Event) -> None:
    publisher = Publisher(settings)
    started, sent = time.time(), 0
    with progress("publishing", len(loaded)) as bar:
        for sent in send(publisher, settings.kafka_topic, loaded, int(started * 1000)):
            bar(sent)
            if stop.is_set():
                break
        publisher.flush()
    publisher.close()
    seconds = time.time() - started
    out.print(f"Published {sent} events to {settings.kafka_topic} in {seconds:.1f} s.")
    if sent < len(loaded):
        raise Stopped("publishing")


def _one_by_one(publisher: Publisher, topic: str, loaded: Loaded, now_ms: int) -> Iterator[int]:
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


def _in_bulk(publisher: Publisher, topic: str, loaded: Loaded, now_ms: int) -> Iterator[int]:
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
