"""The endpoint of a process: /metrics for Prometheus, /healthz and /readyz for an orchestrator.

    /healthz   200 while the process works, also while it waits or trains; 503 if its loop hangs
    /readyz    200 if the process can do its job now; 503 with the reasons, one a line

Clients may be silent, slow or many. Each connection has a thread, which ends with it after
`SECONDS` at the latest; of more than `CONNECTIONS` the oldest gives way.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from process.health import Health
from process.settings import SettingsError

CONNECTIONS = 32
SECONDS = 5.0  # from the begin of a connection to its end

Start = Callable[..., Any]


@contextmanager
def endpoint(host: str, port: int, registry: CollectorRegistry, health: Health) -> Iterator[None]:
    """Answer at `host`:`port` while inside; port 0: there is no endpoint.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    if not port:
        yield
        return
    server = _server(host, port, _app(registry, health))
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="endpoint", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        server.end_all()


def _app(registry: CollectorRegistry, health: Health) -> Callable[..., Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                page: Iterable[bytes] = metrics(environ, start)
                return page
            case "/healthz":
                lines = [health.doing or "ok"] if health.works else ["the loop hangs"]
                return _answer(start, health.works, lines)
            case "/readyz":
                return _answer(start, not health.lacking, health.lacking or ["ready"])
        return _answer(start, False, ["try /metrics, /healthz or /readyz"], "404 Not Found")

    return app


def _answer(
    start: Start, good: bool, lines: list[str], bad: str = "503 Service Unavailable"
) -> Iterable[bytes]:
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    start("200 OK" if good else bad, headers)
    return ["".join(f"{line}\n" for line in lines).encode(errors="replace")]


def _server(host: str, port: int, app: Callable[..., Iterable[bytes]]) -> _Server:
    try:
        server = _Server(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingsError(
            f"STREAMGCN_METRICS_PORT={port} is refused: cannot listen on {host}:{port} "
            f"({error}); free the port, or set another one or another STREAMGCN_METRICS_HOST"
        ) from None
    server.set_app(app)
    return server


class _Server(ThreadingWSGIServer):
    request_queue_size = 128  # connections that wait to be accepted

    def __init__(self, host: str, port: int) -> None:
        self._begun: dict[socket.socket, float] = {}  # open connections, the oldest first
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]  # IPv4 or IPv6
        super().__init__((host, port), _Quiet)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._begun[request] = time.monotonic()
        for oldest in list(self._begun)[:-CONNECTIONS]:
            self._end(oldest)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections that are too old; the server calls it several times a second."""
        now = time.monotonic()
        for request, begun in list(self._begun.items()):
            if now - begun > SECONDS:
                self._end(request)

    def shutdown_request(self, request: Any) -> None:
        self._begun.pop(request, None)
        super().shutdown_request(request)

    def end_all(self) -> None:
        for request in list(self._begun):
            self._end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no line in the log."""

    def server_bind(self) -> None:
        """Bind, unlike the base class without asking the DNS, which may hang, for a name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # of IP it is text
        self.setup_environ()

    def _end(self, request: socket.socket) -> None:
        self._begun.pop(request, None)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are no lines in the log."""
