"""Reaching the broker: the client's settings, short-lived clients, and waiting for an answer."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError

from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.outage import Outage

CHECK_MS = 3_000
Headers = Sequence[tuple[str, bytes]]


class StreamError(StreamGCNError):
    """Kafka refuses or does not answer; the text says what to do."""


class TopicShorter(StreamError):
    """The topic ends before the offset to start at: it was created anew."""


class TooLarge(StreamError):
    """The broker takes no message of that size."""


class Message(NamedTuple):
    """What is used of the client's ConsumerRecord; `timestamp` in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def connection(settings: ConsumerSettings) -> dict[str, Any]:
    """The client's arguments to reach the broker."""
    password = settings.kafka_sasl_password
    given: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "ssl_cafile": settings.kafka_ssl_cafile and str(settings.kafka_ssl_cafile),
        "ssl_certfile": settings.kafka_ssl_certfile and str(settings.kafka_ssl_certfile),
        "ssl_keyfile": settings.kafka_ssl_keyfile and str(settings.kafka_ssl_keyfile),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        given |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password and password.get_secret_value(),
        }
    return {name: value for name, value in given.items() if value is not None}


def until_it_answers(
    act: Callable[[], Any], settings: ConsumerSettings, stop: threading.Event, log: logging.Logger
) -> Any:
    """What `act` returns, waiting for the broker; None if told to stop."""
    outage = broker_outage(settings, log)
    while not stop.is_set():
        try:
            knock(settings)
            made = act()
        except (KafkaError, OSError) as error:
            stop.wait(outage.failed(error))
            continue
        outage.worked()
        return made
    return None


def broker_outage(settings: ConsumerSettings, log: logging.Logger) -> Outage:
    """What is said of a broker that does not answer."""
    address = settings.kafka_bootstrap_servers
    return Outage(log, f"Kafka at {address} does not answer", f"Kafka at {address} is back")


def knock(settings: ConsumerSettings) -> None:
    """Raise OSError if no broker listens; a client that finds none leaves a thread behind."""
    servers = settings.kafka_bootstrap_servers.split(",")
    for server in servers:
        host, _, port = server.strip().rpartition(":")
        if not port.isdigit():
            host, port = server.strip(), "9092"
        try:
            socket.create_connection((host.strip("[]"), int(port)), CHECK_MS / 1000).close()
            return
        except OSError:
            if server is servers[-1]:
                raise


@contextmanager
def admin_client(settings: ConsumerSettings) -> Iterator[KafkaAdminClient]:
    """An admin client; its errors become StreamError."""
    try:
        admin = KafkaAdminClient(**connection(settings), bootstrap_timeout_ms=CHECK_MS)
        try:
            yield admin
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        raise StreamError(f"Kafka at {settings.kafka_bootstrap_servers}: {error}") from error


@contextmanager
def log_reader(settings: ConsumerSettings) -> Iterator[KafkaConsumer]:
    """A consumer without a group; its errors become StreamError."""
    try:
        reader = KafkaConsumer(
            **connection(settings),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            bootstrap_timeout_ms=CHECK_MS,
        )
        try:
            yield reader
        finally:
            reader.close(autocommit=False)
    except (KafkaError, OSError) as error:
        raise StreamError(f"Kafka at {settings.kafka_bootstrap_servers}: {error}") from error
