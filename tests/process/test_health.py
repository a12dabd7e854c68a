"""/metrics, /healthz and /readyz, and what they say of a process that works, waits or hangs."""

import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from process import health as state
from process import http
from process.health import Health
from process.http import endpoint
from process.settings import SettingsError
from streamgcn.services.ports import free_port
from tests.services import PATIENCE, wait_for
from tests.threads import threads
from tests.watching import get


class Endpoint:
    def __init__(self, port: int, health: Health) -> None:
        self.port, self.health = port, health

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        return get(self.port, path, host)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)


@pytest.fixture
def watched() -> Iterator[Endpoint]:
    registry, health, port = CollectorRegistry(), Health(), free_port()
    Gauge("events", "so far", registry=registry).set(7)
    with endpoint("127.0.0.1", port, registry, health):
        yield Endpoint(port, health)


def test_figures_are_at_metrics_alone(watched: Endpoint) -> None:
    assert "events 7.0" in watched.get("/metrics")[1]
    assert watched.get("/")[0] == watched.get("/nothing")[0] == 404


def test_a_process_that_starts_works_and_is_not_ready_before_its_loop_goes_round(
    watched: Endpoint,
) -> None:
    assert watched.get("/healthz") == (200, "ok\n")
    assert watched.get("/readyz") == (503, "the process is starting\n")
    watched.health.alive()
    assert watched.get("/readyz") == (200, "ready\n")


def test_a_loop_that_hangs_is_unhealthy_and_one_that_trains_for_minutes_is_not(
    watched: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SILENT_SECONDS", -1.0)
    assert watched.get("/healthz") == (503, "the loop hangs\n")
    with watched.health.busy("training"):
        code, text = watched.get("/healthz")
        assert (code, text.split(" for ")[0]) == (200, "training")
    monkeypatch.setattr(state, "SILENT_SECONDS", 60.0)
    assert watched.get("/healthz") == (200, "ok\n")


def test_what_waits_for_redis_is_healthy_and_not_ready_and_says_why(watched: Endpoint) -> None:
    watched.health.alive()
    watched.health.needs(Redis="Redis does not answer: refused", Kafka="")
    assert watched.get("/readyz") == (503, "Redis does not answer: refused\n")
    assert watched.get("/healthz") == (200, "ok\n")
    watched.health.needs(Redis="", Kafka="")
    with watched.health.waiting("the edge store"):
        assert watched.get("/readyz") == (503, "waiting for the edge store\n")
        assert watched.get("/healthz")[0] == 200
    assert watched.get("/readyz") == (200, "ready\n")


def test_silent_clients_keep_no_one_from_the_endpoint_and_take_no_threads_without_end(
    watched: Endpoint,
) -> None:
    before = threads()
    silent = [watched.connect() for _ in range(5 * http.CONNECTIONS)]
    assert watched.get("/healthz")[0] == 200
    assert watched.get("/metrics")[0] == 200
    wait_for("few threads", lambda: len(threads() - before) <= http.CONNECTIONS + 1)
    for client in silent:
        client.close()


def test_a_client_that_sends_a_byte_at_a_time_is_cut_off(
    watched: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.5)
    before, began = threads(), time.monotonic()
    with watched.connect() as slow:

        def cut_off() -> bool:
            try:
                slow.send(b"G")
            except OSError:
                return True
            return False

        wait_for("the end of the connection", cut_off)
    assert time.monotonic() - began >= 0.5
    wait_for("the end of its thread", lambda: not threads() - before)


def test_the_endpoint_ends_with_the_process_also_with_a_client_connected() -> None:
    before, port = threads(), free_port()
    with endpoint("127.0.0.1", port, CollectorRegistry(), Health()):
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        wait_for("its thread", lambda: len(threads() - before) > 1)
    wait_for("the end of all threads", lambda: not threads() - before)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)


def test_it_listens_on_loopback_alone_unless_told_otherwise(watched: Endpoint) -> None:
    others = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    for host in others - {"127.0.0.1", "::1"}:
        if not host.startswith("127.") and ":" not in host:
            assert watched.get("/healthz", host) == (0, "")


def test_it_listens_on_ipv6_where_that_is_asked_for() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    with endpoint("::1", port, CollectorRegistry(), Health()):
        assert Endpoint(port, Health()).get("/healthz", "[::1]")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "no such host", "203.0.113.7"])
def test_an_address_that_cannot_be_listened_on_is_a_wrong_setting(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"STREAMGCN_METRICS_PORT={port} is refused"),
            endpoint(host, port, CollectorRegistry(), Health()),
        ):
            raise AssertionError("it was opened")
