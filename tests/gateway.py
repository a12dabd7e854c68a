"""Servers that are away or refuse: a way to one that can be closed, and one that has one answer."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BACKLOG = 64


class Gateway:
    """Passes on what comes to `port`, while it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listening.getsockname()[1]
        self._serve()

    def close(self) -> None:
        """Refuse connections, and end those that there are."""
        self._end(self._listening)
        with self._lock:
            ended, self._open = self._open, set()
        for each in ended:
            self._end(each)

    def open(self) -> None:
        """Take connections again."""
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                came, _ = listening.accept()
                to = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open |= {came, to}
                for pair in ((came, to), (to, came)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65_536):
                to.sendall(content)
        for each in (source, to):
            self._end(each)

    @staticmethod
    def _end(each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def gateway(target: int) -> Iterator[Gateway]:
    """A gateway to a port of this machine."""
    made = Gateway(target)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def answering(status: int, content: str) -> Iterator[str]:
    """A web server with one answer to everything; its address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_PUT = do_POST = answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
