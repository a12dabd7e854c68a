"""One connection to one broker, on which a question is asked and its answer awaited.

The client's own connections answer later, on other threads; here each step fails by itself.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, NamedTuple

from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.parser import KafkaProtocol

SECONDS = 3.0  # for one step


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Closed(ConnectionError):
    """The other side ended the connection instead of answering."""


class Link:
    """A connection on which one question is asked after the other."""

    def __init__(self, server: Address, tls: ssl.SSLContext | None) -> None:
        """Connect, with TLS if it is given.

        Raises:
            OSError: the broker does not answer in time, or the TLS handshake fails.
        """
        plain = socket.create_connection(server, SECONDS)
        try:
            host = server.host.rstrip(".")
            self._socket = tls.wrap_socket(plain, server_hostname=host) if tls else plain
        except BaseException:
            plain.close()
            raise
        self._protocol = KafkaProtocol(client_id="streamgcn", receive_message_max_bytes=1 << 24)
        self._versions: BrokerVersionData | None = None

    def greet(self) -> None:
        """Learn which requests the broker knows.

        Raises:
            OSError, KafkaError: the broker ends the connection, or does not answer in time.
        """
        known = self.ask(ApiVersionsRequest(version=0)).api_keys
        self._versions = BrokerVersionData(
            api_versions={each.api_key: (each.min_version, each.max_version) for each in known}
        )

    def ask(self, request: Any) -> Any:
        """The broker's answer to a request; both are the client library's objects.

        Raises:
            Closed: the broker ended the connection.
            OSError, KafkaError: the broker does not answer in time, or not as it should.
        """
        if request.API_VERSION is None and self._versions:
            request.API_VERSION = self._versions.api_version(request)
        self._protocol.send_request(request)
        self._socket.sendall(self._protocol.send_bytes())
        while data := self._socket.recv(65_536):
            for _, response in self._protocol.receive_bytes(data):
                return response
        raise Closed("the broker closes the connection")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
