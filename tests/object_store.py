"""An edge store in a bucket: what lies there, and a gate on the way to it that can be shut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from pyarrow.fs import FileSelector, FileType

from consumer.edge.table import place
from tests.s3 import S3


def edges_in_a_bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI for a store in a new bucket; this process has the credentials from now on."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket()}/edges"


def objects(uri: str) -> dict[str, bytes]:
    """All objects below a URI, by their keys."""
    files = place(uri)
    found = files.get_file_info(FileSelector("", recursive=True))
    paths = [each.path for each in found if each.type == FileType.File]
    return {path: files.open_input_file(path).read() for path in paths}


class Gate:
    """A port before a server that passes all on, or is shut: then it refuses each connection."""

    def __init__(self, address: str) -> None:
        behind = urlsplit(address)
        self._behind = behind.hostname or "", behind.port or 0
        self._open: set[socket.socket] = set()
        self._port = 0
        # Whether the answer to a request that begins so is to be lost; told once a request.
        self.loses: Callable[[bytes], bool] = lambda _: False
        self.open()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for each in list(self._open):
            _end(each)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._behind)
                self._open |= {client, server}
                lost = threading.Event()
                for way in ((client, server, lost, True), (server, client, lost, False)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, lost: threading.Event, asks: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if asks and self.loses(data):
                    lost.set()
                if not asks and lost.is_set():
                    break
                target.sendall(data)
        for each in (source, target):
            _end(each)
            self._open.discard(each)


@contextlib.contextmanager
def gate(s3: S3) -> Iterator[Gate]:
    """A gate before the server."""
    made = Gate(s3.address)
    try:
        yield made
    finally:
        made.shut()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
