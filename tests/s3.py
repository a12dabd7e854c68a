"""A server that speaks S3, in a process of its own: moto's, which keeps all in memory.

Run as a module it is the server. S3 checks the conditions of a write and writes in one step; moto
does it in two, on a thread for each request, so here one request writes at a time.
"""

from __future__ import annotations

import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import free_ports, process

REGION = "us-east-1"


class S3:
    """The server; `address` is its URL."""

    def __init__(self, address: str) -> None:
        self.address = address
        # As any client of S3 reads them. The server takes any key.
        self.environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "right-secret",
        }

    def bucket(self) -> str:
        """Make a new bucket; returns the name."""
        name = f"b{uuid.uuid4().hex}"
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310
        return name


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """A server on a free port, started empty."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "tests.s3", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, port, folder / "s3.log"):
        yield S3(f"http://127.0.0.1:{port}")


def main() -> None:
    from moto import server
    from moto.s3.responses import S3Response

    put, lock = S3Response.put_object, threading.Lock()

    def put_alone(request: S3Response) -> object:
        with lock:
            return put(request)

    S3Response.put_object = put_alone  # type: ignore[method-assign,assignment]
    server.main(sys.argv[1:])


if __name__ == "__main__":
    main()
