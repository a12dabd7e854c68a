"""Short-lived clients, and waiting for a broker that answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import AuthorizationError, KafkaError

from consumer.kafka.access import check_access
from consumer.kafka.client import AccessRefused, in_words, make_client, words
from consumer.kafka.records import reading_client
from consumer.settings import ConsumerSettings
from process.outage import Outage
from process.retry import until_it_works

Result = TypeVar("Result")


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


@contextmanager
def _client(
    kind: Callable[..., Any], settings: ConsumerSettings, right: str, **options: Any
) -> Iterator[Any]:
    try:
        check_access(settings)
        yield make_client(kind, settings, **options)
    except (KafkaError, OSError) as error:
        raise in_words(error, settings, right) from error
