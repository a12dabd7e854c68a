"""REDIS_URL with a wrong password, certificate or protocol: one line that names the cause.

The certificates are made here; a real Redis speaks TLS, or a proxy before one that cannot.
"""

import datetime
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from redis import Redis

from serving.redis.errors import RedisDown, RedisMisconfigured
from serving.redis.store import Store
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_binary
from tests.commands import run
from tests.rooms import Rooms
from tests.services import PATIENCE, real_redis, wait_for
from tests.threads import begun

KEY_PASSWORD = "key-secret"  # noqa: S105  of a test


class Place(NamedTuple):
    """Ports of one Redis, in clear and by TLS, and files of certificates."""

    plain: int
    tls: int
    mutual: int  # wants a client's certificate
    old: int  # shows a certificate that has expired
    ca: Path
    other_ca: Path
    own: Path  # a client's certificate and key
    stranger: Path  # the same of the other authority
    expired: Path  # the same, too old
    locked: Path  # a client's key that KEY_PASSWORD opens
    server: Path  # the server's certificate and key
    old_server: Path  # the same, too old


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


def speaks_tls() -> bool:
    """Whether the Redis of this machine was built with TLS."""
    asked = [redis_binary(), "--port", "0", "--tls-port", "1"]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    return "tls-cert-file" in ended.stdout


@contextmanager
def tls_redis(
    plain: int, folder: Path, files: dict[str, Path], server: str, mutual: bool = False
) -> Iterator[int]:
    """The port of a Redis with TLS; a proxy before `plain` where Redis does not know TLS."""
    own = str(files[server])
    if speaks_tls():
        port = free_port()
        options = [
            "--port", "0", "--tls-port", str(port), "--requirepass", "secret",
            "--tls-cert-file", own, "--tls-key-file", own, "--tls-ca-cert-file", str(files["ca"]),
            "--tls-auth-clients", "yes" if mutual else "no",
        ]  # fmt: skip
        with real_redis(folder, port, *options):
            yield port
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        if mutual:
            context.load_verify_locations(files["ca"])
            context.verify_mode = ssl.CERT_REQUIRED
        with encrypted(plain, context) as port:
            yield port


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    names = Place._fields[Place._fields.index("ca") :]
    files = {name: folder / f"{name}.pem" for name in names}
    ca.cert_pem.write_to_path(str(files["ca"]))
    other.cert_pem.write_to_path(str(files["other_ca"]))
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    own = ca.issue_cert("client")
    pairs = {
        "own": own,
        "stranger": other.issue_cert("client"),
        "expired": ca.issue_cert("client", not_after=past),
        "server": ca.issue_cert("localhost"),
        "old_server": ca.issue_cert("localhost", not_after=past),
    }
    for name, pair in pairs.items():
        pair.private_key_and_cert_chain_pem.write_to_path(str(files[name]))
    key = serialization.load_pem_private_key(own.private_key_pem.bytes(), None)
    hidden = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files["locked"].write_bytes(key.private_bytes(*form, hidden))
    with ExitStack() as stack:
        url = stack.enter_context(real_redis(folder, 0, "--requirepass", "secret"))
        plain = int(url.split(":")[2].split("/")[0])
        one_way = stack.enter_context(tls_redis(plain, folder, files, "server"))
        both = stack.enter_context(tls_redis(plain, folder, files, "server", mutual=True))
        old = stack.enter_context(tls_redis(plain, folder, files, "old_server"))
        yield Place(plain, one_way, both, old, *(files[name] for name in names))


RIGHT = {
    "in clear": "redis://:secret@localhost:{plain}/0",
    "by TLS": "rediss://:secret@localhost:{tls}/0?ssl_ca_certs={ca}",
    "by TLS both ways": "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={own}"
    "&ssl_keyfile={own}",
    "by TLS both ways, with a locked key": "rediss://:secret@localhost:{mutual}/0"
    "?ssl_ca_certs={ca}&ssl_certfile={own}&ssl_keyfile={locked}&ssl_password=" + KEY_PASSWORD,
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
    "an expired certificate": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={expired}"
        "&ssl_keyfile={expired}",
        "refuses the certificate that REDIS_URL gives or lacks",
    ),
    "an expired certificate of Redis": (
        "rediss://:secret@localhost:{old}/0?ssl_ca_certs={ca}", "certificate has expired"
    ),
    "another password of the key": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={own}"
        "&ssl_keyfile={locked}&ssl_password=hunter2",
        "ssl_password",
    ),
    "a locked key without its password": (
        "rediss://:secret@localhost:{mutual}/0?ssl_ca_certs={ca}&ssl_certfile={own}"
        "&ssl_keyfile={locked}",
        "ssl_password",
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
    # Redis with TLS is another one than the one in clear.
    with Redis.from_url(RIGHT["by TLS"].format(**place._asdict())) as redis:
        store = Store(RIGHT["by TLS"].format(**place._asdict()), "p")
        store.generation()
        redis.config_set("requirepass", "changed")
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(RedisMisconfigured, match="refuses the user and password"):
            store.generation()
        redis.config_set("requirepass", "secret")
        assert store.generation()
        store.close()
