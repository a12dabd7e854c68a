"""The client's arguments, its making, and its errors in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from kafka.errors import (
    AuthorizationError,
    BrokerResponseError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient

from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.settings import SettingsError

CHECK_MS = 3_000
RECONNECT_MS = 5_000  # between two tries of a client to connect again, at most
Client = TypeVar("Client")
Headers = Sequence[tuple[str, bytes | None]]
SAID = {
    CoordinatorLoadInProgressError: "the broker still reads the offsets of the consumer groups",
    CoordinatorNotAvailableError: "the broker is not ready for consumer groups yet",
    NotCoordinatorError: "the consumer group is moving to another broker",
    UnknownTopicOrPartitionError: "the topic is missing",
}


class StreamError(StreamGCNError):
    """Kafka refuses or does not answer; the text says what to do."""


class AccessRefused(StreamError, SettingsError):
    """Kafka does not let this process in, or not do what it must; waiting does not change that."""


class TopicShorter(StreamError):
    """The topic ends before the offset to start at: it was created anew."""


class TooLarge(StreamError):
    """The broker takes no message of that size."""


class Message(NamedTuple):
    """What is used of the client's ConsumerRecord.

    The timestamp is in epoch milliseconds, whatever a producer set; -1 or None if it set none. The
    value is `Unreadable` where the client could not read what was sent.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


def connection(settings: ConsumerSettings) -> dict[str, Any]:
    """The client's arguments to reach the broker."""
    password, key_password = settings.kafka_sasl_password, settings.kafka_ssl_password
    given: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "reconnect_backoff_max_ms": RECONNECT_MS,
        "ssl_cafile": settings.kafka_ssl_cafile and str(settings.kafka_ssl_cafile),
        "ssl_certfile": settings.kafka_ssl_certfile and str(settings.kafka_ssl_certfile),
        "ssl_keyfile": settings.kafka_ssl_keyfile and str(settings.kafka_ssl_keyfile),
        # With None the TLS library would ask a terminal for it.
        "ssl_password": key_password.get_secret_value() if key_password else "",
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        given |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password and password.get_secret_value(),
        }
    return {name: value for name, value in given.items() if value is not None}


def make_client(kind: Callable[..., Client], settings: ConsumerSettings, **options: Any) -> Client:
    """A client of the library; where it cannot be made, nothing that it opened stays open.

    Raises:
        KafkaError, OSError: as the library does.
    """
    opened: list[KafkaNetClient] = []

    def net_client(**given: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**given))
        return opened[-1]

    try:
        return kind(
            **connection(settings),
            bootstrap_timeout_ms=CHECK_MS,
            kafka_client=net_client,
            **options,
        )
    except BaseException:
        for each in opened:
            each.close()
        raise


def in_words(error: BaseException, settings: ConsumerSettings, right: str) -> StreamError:
    """The library's error as one of ours.

    Args:
        right: what was tried, as in "READ topic interactions".
    """
    address = settings.kafka_bootstrap_servers
    if isinstance(error, StreamError):
        return error
    if isinstance(error, AuthorizationError):
        user = settings.kafka_sasl_username
        who = f"the user {user}" if user else "this process"
        return AccessRefused(f"Kafka at {address} does not let {who} {right}; grant that right")
    if isinstance(error, SaslAuthenticationFailedError):
        return AccessRefused(f"Kafka at {address} does not let this process in: {error}")
    text = words(error)
    return StreamError(text if text.startswith("Kafka at ") else f"Kafka at {address}: {text}")


def words(error: BaseException) -> str:
    """What an error says; of an error of the broker what it means, without the protocol's number.

    An error that was made with the name of a topic names it.
    """
    if not isinstance(error, BrokerResponseError):
        return str(error) or type(error).__name__
    meaning = SAID.get(type(error)) or f"{type(error).__name__}, {error.description}"
    about = ", ".join(map(str, error.args))
    return f"{meaning} ({about})" if about else meaning
