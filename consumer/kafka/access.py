"""Whether a broker lets this process in; what waiting cannot heal is told from what it can.

The client reports a wrong password, certificate or protocol as a timeout. So before it is made, one
connection goes the way that the client will go, step by step: the files, TCP, TLS, SASL, a first
question, then the same at an address that the broker advertises. What is refused has a cause.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from kafka.cluster import collect_hosts
from kafka.errors import KafkaError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from consumer.kafka.client import AccessRefused, connection
from consumer.kafka.link import Address, Closed, Link
from consumer.kafka.tls import broker_certificate_refused, tls_context, verified_nothing
from consumer.settings import ConsumerSettings

UNSUPPORTED_MECHANISM, ILLEGAL_SASL_STATE = 33, 34  # error codes of the protocol


def check_access(settings: ConsumerSettings) -> None:
    """See that a broker lets this process in.

    Raises:
        AccessRefused: none does, and waiting will not change that.
        OSError: none answers; one may later.
    """
    if settings.kafka_security_protocol.startswith("SASL"):
        for name in ("username", "password"):
            if not getattr(settings, f"kafka_sasl_{name}"):
                raise AccessRefused(
                    f"KAFKA_SASL_{name.upper()} is not set, and KAFKA_SECURITY_PROTOCOL="
                    f"{settings.kafka_security_protocol} needs it"
                )
    tls = tls_context(settings) if settings.kafka_security_protocol.endswith("SSL") else None
    given = settings.kafka_bootstrap_servers.split(",")
    servers = [Address(host, port) for host, port, _ in collect_hosts(given, randomize=False)]
    advertised = _first(settings, tls, servers)
    try:
        _first(settings, tls, advertised)
    except OSError as error:
        names = ", ".join(map(str, advertised))
        raise OSError(f"it answers, but advertises {names}, where: {error}") from error


def _first(
    settings: ConsumerSettings, tls: ssl.SSLContext | None, servers: Iterable[Address]
) -> list[Address]:
    """Addresses that the first broker advertises which lets the process in."""
    failures: list[Exception] = []
    for server in servers:
        try:
            return _Visit(settings, tls, server).brokers()
        except AccessRefused as error:
            failures.insert(0, error)  # says more than that another one is away
        except (OSError, KafkaError) as error:
            failures.append(OSError(f"Kafka at {server}: {error or type(error).__name__}"))
    raise failures[0] if failures else OSError("it names no broker")


class _Visit:
    """One way to one broker, and why it ends early."""

    def __init__(
        self, settings: ConsumerSettings, tls: ssl.SSLContext | None, server: Address
    ) -> None:
        self._settings, self._tls, self._server = settings, tls, server
        self._protocol = settings.kafka_security_protocol

    def brokers(self) -> list[Address]:
        """Go all the way; the addresses that the broker advertises."""
        with closing(self._connect()) as link:
            self._greet(link)
            if self._protocol.startswith("SASL"):
                self._sign_in(link)
            try:
                found = link.ask(MetadataRequest(topics=[])).brokers
            except (Closed, ConnectionError) as error:
                self._refuse_if_it_wants_sasl()
                raise error
        return [Address(each.host, each.port) for each in found]

    def _connect(self) -> Link:
        try:
            return Link(self._server, self._tls)
        except ssl.SSLCertVerificationError as error:
            raise broker_certificate_refused(error, self._settings, self._server) from None
        except (ssl.SSLError, ConnectionResetError) as error:
            if self._answers_in_plain_text():
                protocol = self._protocol.replace("SSL", "PLAINTEXT")
                raise self._refused(
                    f"speaks no TLS: set KAFKA_SECURITY_PROTOCOL to {protocol}"
                ) from None
            raise self._without_tls(error) from None

    def _greet(self, link: Link) -> None:
        try:
            link.greet()
        except ssl.SSLError as error:
            raise self._without_tls(error) from None
        except (OSError, KafkaError) as error:
            if self._tls is None and self._answers_with_tls():
                protocol = self._protocol.replace("PLAINTEXT", "SSL")
                raise self._refused(
                    f"speaks TLS: set KAFKA_SECURITY_PROTOCOL to {protocol}"
                ) from None
            raise error

    def _without_tls(self, error: ssl.SSLError | OSError) -> Exception:
        """What a handshake that the broker ended means."""
        reason = getattr(error, "reason", None) or ""
        if "ALERT" not in reason:
            return error
        said = reason.replace("_", " ").lower()
        if self._settings.kafka_ssl_certfile is None:
            return self._refused(
                f"asks for a certificate ({said}): set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
            )
        return self._refused(
            f"refuses the certificate KAFKA_SSL_CERTFILE={self._settings.kafka_ssl_certfile} "
            f"({said}): it has expired, or the broker does not trust the authority that signed it"
        )

    def _sign_in(self, link: Link) -> None:
        mechanism = self._settings.kafka_sasl_mechanism
        answer = link.ask(SaslHandshakeRequest(version=1, mechanism=mechanism))
        if answer.error_code == ILLEGAL_SASL_STATE:
            protocol = self._protocol.removeprefix("SASL_")
            raise self._refused(f"wants no SASL: set KAFKA_SECURITY_PROTOCOL to {protocol}")
        if answer.error_code == UNSUPPORTED_MECHANISM:
            raise self._refused(
                f"does not know KAFKA_SASL_MECHANISM={mechanism}; it knows "
                f"{', '.join(answer.mechanisms)}"
            )
        if answer.error_code:
            raise for_code(answer.error_code)()
        talk = get_sasl_mechanism(mechanism)(
            host=self._server.host, sasl_mechanism=mechanism, **_credentials(self._settings)
        )
        while not talk.is_done():
            answer = link.ask(SaslAuthenticateRequest(talk.auth_bytes(), version=0))
            if answer.error_code:
                raise self._refused(
                    f"refuses KAFKA_SASL_USERNAME={self._settings.kafka_sasl_username} with the "
                    f"given KAFKA_SASL_PASSWORD by {mechanism}: {answer.error_message}"
                )
            try:
                talk.receive(answer.auth_bytes)
            except ValueError as error:  # it does not know the password either
                raise self._refused(f"cannot prove by {mechanism} who it is: {error}") from None

    def _answers_in_plain_text(self) -> bool:
        try:
            with closing(Link(self._server, None)) as link:
                link.greet()
        except (OSError, KafkaError):
            return False
        return True

    def _answers_with_tls(self) -> bool:
        try:
            Link(self._server, verified_nothing()).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
        return True

    def _refuse_if_it_wants_sasl(self) -> None:
        if self._protocol.startswith("SASL"):
            return
        with closing(Link(self._server, self._tls)) as link:
            link.greet()
            answer = link.ask(SaslHandshakeRequest(version=1, mechanism="PLAIN"))
        if answer.error_code in (0, UNSUPPORTED_MECHANISM):
            raise self._refused(
                f"wants SASL ({', '.join(answer.mechanisms)}): set KAFKA_SECURITY_PROTOCOL to "
                f"SASL_{self._protocol}, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and "
                "KAFKA_SASL_PASSWORD"
            )

    def _refused(self, sentence: str) -> AccessRefused:
        return AccessRefused(f"Kafka at {self._server} {sentence}")


def _credentials(settings: ConsumerSettings) -> dict[str, Any]:
    wanted = ("sasl_plain_username", "sasl_plain_password")
    given = connection(settings)
    return {name: given[name] for name in wanted}
