"""Short-lived clients, and waiting for a broker that answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError, KafkaTimeoutError

from consumer.kafka.access import check_access
from consumer.kafka.client import (
    CHECK_MS,
    AccessRefused,
    Message,
    in_words,
    make_client,
    words,
)
from consumer.kafka.records import reading_client
from consumer.settings import ConsumerSettings
from process.outage import Outage
from process.retry import until_it_works

Result = TypeVar("Result")
POLL_MS = 500
SILENT_SECONDS = 5.0  # after which a broker that gives no messages is asked whether it is there
GIVE_UP_SECONDS = 60.0  # for which it may give none although more are there


def until_it_answers(
    act: Callable[[], Result],
    settings: ConsumerSettings,
    stop: threading.Event,
    log: logging.Logger,
    running: bool = False,
) -> Result:
    """What `act` returns, waiting for the broker.

    Args:
        running: a refusal is waited for as well; it was not there when the process started.

    Raises:
        AccessRefused: waiting would not help, and not `running`.
        Stopped: told to stop before the broker answered.
        StreamError: from `act`.
    """

    def let_in_and_act() -> Result:
        try:
            check_access(settings)
            return act()
        except AuthorizationError:
            raise
        except (KafkaError, OSError) as error:
            raise _Unanswered(words(error)) from error

    def heals(error: BaseException) -> bool:
        return isinstance(error, _Unanswered) or (running and isinstance(error, AccessRefused))

    what = f"Kafka at {settings.kafka_bootstrap_servers}"
    return until_it_works(let_in_and_act, heals, broker_outage(log), stop, what)


class _Unanswered(Exception):
    """The broker does not answer, or not yet; the text says why."""


def broker_outage(log: logging.Logger) -> Outage:
    """What is said of a broker that does not answer, or refuses."""
    return Outage(log, "Kafka cannot be used", "Kafka can be used again")


@contextmanager
def admin_client(settings: ConsumerSettings, right: str) -> Iterator[KafkaAdminClient]:
    """An admin client; an error becomes StreamError.

    Args:
        right: what it is for, as in "DESCRIBE group streamgcn".

    Raises:
        AccessRefused: it may not do that, or not come in.
        StreamError: the broker does not answer.
    """
    with _client(KafkaAdminClient, settings, right) as admin:
        try:
            yield admin
        finally:
            admin.close()


@contextmanager
def log_reader(settings: ConsumerSettings) -> Iterator[KafkaConsumer]:
    """A consumer without a group; an error becomes StreamError.

    Raises:
        AccessRefused: it may not read the topic, or not come in.
        StreamError: the broker does not answer.
    """
    options = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
    }
    right = f"READ topic {settings.kafka_topic}"
    with _client(reading_client, settings, right, **options) as reader:
        try:
            yield reader
        finally:
            reader.close(autocommit=False)


def to_the_end(
    reader: KafkaConsumer, partitions: Sequence[TopicPartition], ends: Mapping[TopicPartition, int]
) -> Iterator[Sequence[Message]]:
    """What a reader gets of its partitions, up to their ends and to a poll that brings nothing.

    The poll matters because the embedded broker tells an end without the last batch. Nothing comes
    from a broker that is away either, so it must have answered for each partition, and it is asked
    where it is silent.

    Args:
        ends: to which the partitions are read at least.

    Raises:
        KafkaError: the broker does not answer, or gives nothing although more is there.
    """
    heard = time.monotonic()
    while True:
        polled = reader.poll(timeout_ms=POLL_MS)
        yield from polled.values()
        if polled:
            heard = time.monotonic()  # now: whoever takes the messages may need long
            continue
        if all(_is_at(reader, tp, ends.get(tp, 0)) for tp in partitions):
            return
        silent = time.monotonic() - heard
        if silent > SILENT_SECONDS:
            reader.end_offsets(partitions, timeout_ms=CHECK_MS)
        if silent > GIVE_UP_SECONDS:
            topic = partitions[0].topic
            raise KafkaTimeoutError(f"no further message of topic {topic} in {silent:.0f} s")


def _is_at(reader: KafkaConsumer, tp: TopicPartition, end: int) -> bool:
    heard = reader.highwater(tp) is not None
    return heard and (reader.position(tp, timeout_ms=0) or 0) >= end


@contextmanager
def _client(
    kind: Callable[..., Any], settings: ConsumerSettings, right: str, **options: Any
) -> Iterator[Any]:
    try:
        check_access(settings)
        yield make_client(kind, settings, **options)
    except (KafkaError, OSError) as error:
        raise in_words(error, settings, right) from error
