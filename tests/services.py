"""A real broker and a real Redis on free loopback ports, for the tests."""

from __future__ import annotations

import base64
import logging
import os
import random
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from redis import Redis

from streamgcn.services.broker import kafka_command
from streamgcn.services.ports import EmbeddedError, free_port, wait_for_port
from streamgcn.services.redis import redis_command

log = logging.getLogger("services")
T = TypeVar("T")
ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
# For the second run of a test on the embedded broker, where the first one is on Apache Kafka.
BESIDE_APACHE = [pytest.mark.long] if "KAFKA_HOME" in os.environ else []
PATIENCE = 120.0  # seconds that a server may take to start, or a condition to become true


@contextmanager
def process(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until it listens, and end it afterwards; its output goes to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for_port(command[0], child, port, seconds=PATIENCE)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


class Broker:
    """A broker, or a Redis, as a child process."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._command, self._port, self._log = command, port, log
        self.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def kill_and_restart(self) -> None:
        """SIGKILL, then the same again on what it left on disk."""
        self.kill()
        self.start()

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def freeze(self) -> None:
        """Answer nothing any more; the connections stay open."""
        self._child.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self._child.terminate()
        self._child.send_signal(signal.SIGCONT)
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(self._command, stdout=output, stderr=output)
        try:
            wait_for_port(self._command[0], self._child, self._port, seconds=PATIENCE)
        except EmbeddedError:
            self.kill()
            raise


@contextmanager
def embedded_kafka(folder: Path) -> Iterator[Broker]:
    """An embedded broker."""
    port = free_port()
    broker = Broker(kafka_command(port), port, folder / "kafka.log")
    try:
        yield broker
    finally:
        broker.stop()


def free_ports(count: int) -> list[int]:
    """Different ports: one that was found free may be found once more until a server has it."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def start_apache_kafka(folder: Path, **properties: str) -> Broker:
    """Start an Apache Kafka broker, from the distribution that KAFKA_HOME names.

    Args:
        properties: of the broker, with underscores for dots, besides those that the distribution
            has for a first try.
    """
    home = Path(os.environ["KAFKA_HOME"])
    port, controller = free_ports(2)
    text = (home / "config" / "server.properties").read_text()
    text = text.replace("/tmp/kafka-logs", str(folder / "logs"))  # noqa: S108  replaced
    text = text.replace(":9092", f":{port}").replace(":9093", f":{controller}")
    text += "\nlog.retention.ms=-1\n"  # messages of long ago stay until their test has read them
    text += "".join(f"{name.replace('_', '.')}={value}\n" for name, value in properties.items())
    config = folder / "server.properties"
    config.write_text(text)
    if not (folder / "logs" / "meta.properties").exists():  # else it ran here before
        storage = str(home / "bin" / "kafka-storage.sh")
        command = [storage, "format", "--standalone", "-t", cluster_id(), "-c", str(config)]
        subprocess.run(command, check=True, capture_output=True)
    start = [str(home / "bin" / "kafka-server-start.sh"), str(config)]
    return Broker(start, port, folder / "kafka.log")


@contextmanager
def apache_kafka(folder: Path, **properties: str) -> Iterator[Broker]:
    """An Apache Kafka broker; properties as for `start_apache_kafka`."""
    broker = start_apache_kafka(folder, **properties)
    try:
        yield broker
    finally:
        broker.stop()


def cluster_id() -> str:
    """As kafka-storage.sh random-uuid gives: none that begins with a dash, like an option."""
    made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return cluster_id() if made.startswith("-") else made


@contextmanager
def real_redis(folder: Path, port: int = 0, *options: str) -> Iterator[str]:
    """URL of a Redis server, started empty, on a free port unless one is given."""
    port = port or free_port()
    with process([*redis_command(port), *options], port, folder / "redis.log"):
        yield f"redis://127.0.0.1:{port}/0"


def patient(redis_url: str) -> str:
    """The URL for a client that waits as long for an answer of a busy machine as the tests do."""
    options = f"socket_timeout={PATIENCE}&socket_connect_timeout={PATIENCE}"
    return f"{redis_url}{'&' if '?' in redis_url else '?'}{options}"


@contextmanager
def redis_cluster(folder: Path, nodes: int = 3, replicas: int = 0) -> Iterator[list[str]]:
    """URLs of the nodes of a Redis Cluster: primaries that share the slots, then replicas of the
    first one, which take over after two seconds.
    """
    with ExitStack() as stack:
        ports = cluster_ports(nodes + replicas)
        for port in ports:
            home = folder / str(port)
            home.mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
            options += ["--cluster-replica-validity-factor", "0", "--dir", str(home)]
            stack.enter_context(real_redis(home, port, *options))
        clients = [stack.enter_context(Redis(port=port)) for port in ports]
        primary = clients[0].cluster("MYID")
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
            if number < nodes:
                begin, end = 16_384 * number // nodes, 16_384 * (number + 1) // nodes
                client.execute_command("CLUSTER ADDSLOTS", *range(begin, end))

        def agreed() -> bool:
            infos = [client.cluster("INFO") for client in clients]
            known = {(info["cluster_state"], info["cluster_known_nodes"]) for info in infos}
            return known == {("ok", str(len(clients)))}

        wait_for("the cluster", agreed)
        for client in clients[nodes:]:
            client.execute_command("CLUSTER REPLICATE", primary)

        def followed() -> bool:
            """Whether all nodes know all replicas, and these have what the primary has."""
            known = [str(client.execute_command("CLUSTER NODES")) for client in clients]
            links = [client.info("replication")["master_link_status"] for client in clients[nodes:]]
            return {text.count("slave") for text in known} == {replicas} and set(links) <= {"up"}

        wait_for("the replicas", followed)
        yield [f"redis://127.0.0.1:{port}/0" for port in ports]


def cluster_ports(nodes: int) -> list[int]:
    """Free ports whose numbers plus 10,000, for the talk among the nodes, are free too."""
    ports: set[int] = set()
    while len(ports) < nodes:
        port = random.randrange(20_000, 22_700)
        if free_port(port) == port and free_port(port + 10_000) == port + 10_000:
            ports.add(port)
    return sorted(ports)


def wait_for(what: str, look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first result of `look` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def wait_until_done(left: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Until nothing is left to do; whenever something else is left, patience begins anew.

    So what takes long on a busy machine is waited for, and what has come to a halt is told.

    Args:
        left: what is left, in words; empty if all is done.
    """
    found, since = left(), time.monotonic()
    while found:
        if time.monotonic() - since > seconds:
            raise AssertionError(f"for {seconds:.0f} s this was left: {found}")
        time.sleep(0.05)
        if (now := left()) != found:
            found, since = now, time.monotonic()
