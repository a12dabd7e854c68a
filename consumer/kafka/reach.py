"""Short-lived clients, and waiting for a broker that answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import AuthorizationError, KafkaError

from consumer.kafka.access import check_access
from consumer.kafka.client import AccessRefused, in_words, make_client
from consumer.kafka.records import reading_client
from consumer.settings import ConsumerSettings
from process.outage import Outage


def until_it_answers(
    act: Callable[[], Any],
    settings: ConsumerSettings,
    stop: threading.Event,
    log: logging.Logger,
    running: bool = False,
) -> Any:
    """What `act` returns, waiting for the broker; None if told to stop.

    Args:
        running: a refusal is waited for as well; it was not there when the process started.

    Raises:
        AccessRefused: waiting would not help, and not `running`.
        StreamError: from `act`.
    """
    outage = broker_outage(log)
    while not stop.is_set():
        try:
            check_access(settings)
            made = act()
        except AccessRefused as error:
            if not running:
                raise
            stop.wait(outage.failed(error))
        except AuthorizationError:
            raise
        except (KafkaError, OSError) as error:
            stop.wait(outage.failed(error))
        else:
            outage.worked()
            return made
    return None


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
