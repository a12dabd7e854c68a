"""A real broker and a real Redis on free loopback ports, for the tests."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from streamgcn.embedded import free_port, kafka_command, redis_command, wait_for_port

log = logging.getLogger("services")
T = TypeVar("T")
ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"


@contextmanager
def process(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until it listens, and end it afterwards; its output goes to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for_port(command[0], child, port)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


class Broker:
    """A broker as a child process."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._command, self._port, self._log = command, port, log
        self._start()

    def kill_and_restart(self) -> None:
        """SIGKILL, then the same again on what it left on disk."""
        self._child.kill()
        self._child.wait()
        self._start()

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(self._command, stdout=output, stderr=output)
        wait_for_port(self._command[0], self._child, self._port)


@contextmanager
def embedded_kafka(folder: Path) -> Iterator[Broker]:
    """An embedded broker."""
    port = free_port()
    broker = Broker(kafka_command(port), port, folder / "kafka.log")
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def apache_kafka(folder: Path) -> Iterator[Broker]:
    """An Apache Kafka broker, from the distribution that KAFKA_HOME names."""
    home = Path(os.environ["KAFKA_HOME"])
    port, controller = free_port(), free_port()
    text = (home / "config" / "server.properties").read_text()
    text = text.replace("/tmp/kafka-logs", str(folder / "logs"))  # noqa: S108
    text = text.replace(":9092", f":{port}").replace(":9093", f":{controller}")
    config = folder / "server.properties"
    config.write_text(text)
    storage = str(home / "bin" / "kafka-storage.sh")
    cluster = subprocess.run([storage, "random-uuid"], check=True, capture_output=True, text=True)
    command = [storage, "format", "--standalone", "-t", cluster.stdout.strip(), "-c", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    start = [str(home / "bin" / "kafka-server-start.sh"), str(config)]
    broker = Broker(start, port, folder / "kafka.log")
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def real_redis(folder: Path) -> Iterator[str]:
    """URL of a Redis server."""
    port = free_port()
    with process(redis_command(port), port, folder / "redis.log"):
        yield f"redis://127.0.0.1:{port}/0"


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 120.0) -> T:
    """The first result of `look` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
