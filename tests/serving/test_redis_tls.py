"""REDIS_URL with a wrong password, certificate or protocol: one line that names the cause.

The certificates are made here; TLS ends in a proxy before a real Redis.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import trustme
from redis import Redis

from serving.redis.errors import RedisDown, RedisMisconfigured
from serving.redis.store import Store
from tests.commands import run
from tests.rooms import Rooms
from tests.services import PATIENCE, real_redis, wait_for
from tests.threads import begun


class Place(NamedTuple):
    """Ports of one Redis, in clear and by TLS, and files of certificates."""

    plain: int
    tls: int
    mutual: int  # wants a client's certificate
    ca: Path
    other_ca: Path
    own: Path  # a client's certificate and key
    stranger: Path  # the same of the other authority


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)  # which ends the other way's wait
        each.close()


@contextmanager
def encrypted(to: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port of a TLS server that passes all on to the port `to`."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        try:
            inner = context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        inner.settimeout(None)
        outer = socket.create_connection(("127.0.0.1", to))
        threading.Thread(target=pump, args=(outer, inner), daemon=True).start()
        pump(inner, outer)

    accepting = begun(accept)
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        accepting.result(PATIENCE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    server = ca.issue_cert("localhost")
    files = {name: folder / f"{name}.pem" for name in ("ca", "other", "own", "stranger")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    other.cert_pem.write_to_path(str(files["other"]))
    ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(files["own"]))
    other.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(files["stranger"]))
    one_way, mutual = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (one_way, mutual):
        server.configure_cert(context)
    ca.configure_trust(mutual)
    mutual.verify_mode = ssl.CERT_REQUIRED
    with real_redis(folder, 0, "--requirepass", "secret") as url:
        plain = int(url.split(":")[2].split("/")[0])
        with encrypted(plain, one_way) as tls, encrypted(plain, mutual) as both:
            yield Place(plain, tls, both, *files.values())


RIGHT = {
    "in clear": "redis://:secret@localhost:{plain}/0",
    "by TLS": "rediss://:secret@localhost:{tls}/0?ssl_ca_certs={ca}",
    "by TLS both ways": "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={own}"
    "&ssl_keyfile={own}",
}
WRONG = {
    "another password": ("redis://:hunter2@localhost:{plain}/0", "refuses the user and password"),
    "no password": ("redis://localhost:{plain}/0", "refuses the user and password"),
    "an unknown user": ("redis://me:hunter2@localhost:{plain}/0", "refuses the user and password"),
    "another password by TLS": (
        "rediss://:hunter2@localhost:{tls}/0?ssl_ca_certs={ca}", "refuses the user and password"
    ),
    "another authority": (
        "rediss://:secret@localhost:{tls}/0?ssl_ca_certs={other_ca}",
        "certificate of Redis is refused",
    ),
    "the system's authorities": (
        "rediss://:secret@localhost:{tls}/0", "certificate of Redis is refused"
    ),
    "another host name": (
        "rediss://:secret@127.0.0.1:{tls}/0?ssl_ca_certs={ca}", "must name the host that is in the"
    ),
    "no own certificate": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}",
        "refuses the certificate that REDIS_URL gives or lacks",
    ),
    "a stranger's certificate": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={stranger}"
        "&ssl_keyfile={stranger}",
        "refuses the certificate that REDIS_URL gives or lacks",
    ),
    "redis:// to a TLS port": ("redis://:secret@localhost:{tls}/0", "write rediss:// in REDIS_URL"),
    "rediss:// to a plain port": (
        "rediss://:secret@localhost:{plain}/0?ssl_ca_certs={ca}", "write redis:// in REDIS_URL"
    ),
    "a missing file": (
        "rediss://:secret@localhost:{tls}/0?ssl_ca_certs=/nowhere/ca.pem",
        "ssl_ca_certs=/nowhere/ca.pem, which cannot be read: No such file",
    ),
    "a file that is no certificate": (
        "rediss://:secret@localhost:{tls}/0?ssl_ca_certs=" + __file__, "holds no certificate in PEM"
    ),
    "a certificate without its key": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={ca}"
        "&ssl_keyfile={own}",
        "certificate and key do not belong together",
    ),
    "a database that is not there": (
        "redis://:secret@localhost:{plain}/99", "refuses the database that REDIS_URL names"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", RIGHT)
def test_redis_is_reached(how: str, place: Place) -> None:
    store = Store(RIGHT[how].format(**place._asdict()), "p")
    assert store.generation() == store.generation()
    store.close()


@pytest.mark.parametrize("what", WRONG)
def test_what_waiting_cannot_mend_is_told_with_its_cause_again_and_again_without_a_leak(
    what: str, place: Place
) -> None:
    url, cause = WRONG[what]
    given, me = url.format(**place._asdict()), psutil.Process()
    with pytest.raises(RedisMisconfigured) as first, closing(Store(given, "p")) as store:
        store.generation()
    assert cause in str(first.value)
    assert "hunter2" not in str(first.value)
    assert "secret" not in str(first.value)
    assert "\n" not in str(first.value)
    threads, files = me.num_threads(), me.num_fds()
    for _ in range(3):
        with pytest.raises(RedisDown), closing(Store(given, "p")) as store:
            store.generation()
    wait_for("the ends", lambda: me.num_threads() <= threads and me.num_fds() <= files)


@pytest.mark.parametrize("what", ["another password", "redis:// to a TLS port", "a missing file"])
def test_serving_ends_with_code_2_and_one_line(
    what: str, place: Place, embedded: str, tmp_path: Path
) -> None:
    url, cause = WRONG[what]
    rooms = Rooms(tmp_path, embedded, RIGHT["in clear"].format(**place._asdict()))
    env = rooms.env | {"REDIS_URL": url.format(**place._asdict())}
    ended = run(["serving"], env, seconds=15)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count(cause) == 1
    assert "Traceback" not in ended.stderr
    shown = run(["recommend", "u"], env)
    assert shown.returncode == 2
    assert cause in " ".join(shown.stderr.split())
    rooms.store.close()


def test_a_password_that_is_changed_while_serving_runs_is_one_line(place: Place) -> None:
    with Redis(port=place.plain, password="secret") as redis:  # noqa: S106  of a test
        store = Store(RIGHT["by TLS"].format(**place._asdict()), "p")
        store.generation()
        redis.config_set("requirepass", "changed")
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(RedisMisconfigured, match="refuses the user and password"):
            store.generation()
        redis.config_set("requirepass", "secret")
        assert store.generation()
        store.close()
