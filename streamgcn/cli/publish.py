"""The command `publish`: the interactions of files to Kafka."""

from __future__ import annotations

import logging
import threading
import time
from typing import Annotated

import typer

from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import wait_for_topics
from process.log import configure
from process.shutdown import Stopped, stop_on_signals
from serving.settings import ServingSettings
from streamgcn import publish_file
from streamgcn.cli import file_options as given
from streamgcn.files.columns import Columns
from streamgcn.files.load import Loaded, load
from streamgcn.publish_file import Send
from streamgcn.terminal import out, progress


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
            _publish(
                settings,
                loaded,
                publish_file.one_by_one if one_by_one else publish_file.in_bulk,
                stop,
            )
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
