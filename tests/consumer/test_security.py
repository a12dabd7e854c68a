"""Wrong passwords, certificates and protocols, against an Apache Kafka with TLS and SASL."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from consumer.kafka.access import check_access
from consumer.kafka.client import AccessRefused
from consumer.kafka.topics import read_topic, wait_for_topics
from consumer.settings import ConsumerSettings
from tests import services
from tests.commands import PATIENCE, run
from tests.secure import KEY_PASSWORD, SecureKafka

SOON = 15.0  # seconds in which a process that is refused has ended
Change = Mapping[str, str | None]  # of the variables that reach a listener; None takes one out


def environment(secure: SecureKafka, listener: str, change: Change) -> dict[str, str]:
    """`@name` in a value is a listener's address, `=name` a file of the certificates."""
    env: dict[str, str | None] = {**secure.right(listener), **change}
    for name, value in env.items():
        if value and value[0] == "@":
            env[name] = secure.address[value[1:]]
        elif value and value[0] == "=":
            env[name] = str(secure.certificates.path(value[1:]))
    return {name: value for name, value in env.items() if value is not None}


class Start:
    """What every process does first."""

    def __init__(self, secure: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
        self._secure, self._monkeypatch = secure, monkeypatch

    def settings(self, listener: str, change: Change) -> ConsumerSettings:
        for name, value in environment(self._secure, listener, change).items():
            self._monkeypatch.setenv(name, value)
        return ConsumerSettings.load()

    def __call__(self, listener: str, change: Change) -> ConsumerSettings:
        settings = self.settings(listener, change)
        wait_for_topics(settings, threading.Event(), services.log)
        return settings


@pytest.fixture
def start(secure: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> Start:
    return Start(secure, monkeypatch)


WRONG = [
    ("SASL", {"KAFKA_SASL_PASSWORD": "hunter2"}, "refuses KAFKA_SASL_USERNAME=app with the given"),
    ("SASLTLS", {"KAFKA_SASL_PASSWORD": "hunter2"}, "refuses KAFKA_SASL_USERNAME=app"),
    (
        "SASL",
        {"KAFKA_SASL_PASSWORD": "hunter2", "KAFKA_SASL_MECHANISM": "PLAIN"},
        "by PLAIN: Authentication failed: Invalid username or password",
    ),
    ("SASL", {"KAFKA_SASL_USERNAME": "nobody"}, "refuses KAFKA_SASL_USERNAME=nobody"),
    ("SASL", {"KAFKA_SASL_USERNAME": None}, "KAFKA_SASL_USERNAME is not set"),
    ("SASL", {"KAFKA_SASL_PASSWORD": None}, "KAFKA_SASL_PASSWORD is not set"),
    (
        "SASL",
        {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"},
        "does not know KAFKA_SASL_MECHANISM=SCRAM-SHA-512; it knows PLAIN, SCRAM-SHA-256",
    ),
    ("TLS", {"KAFKA_SSL_CAFILE": "=stranger.pem"}, "is by another authority than the one of KAFKA"),
    ("TLS", {"KAFKA_SSL_CAFILE": None}, "set KAFKA_SSL_CAFILE"),
    ("TLS", {"KAFKA_SSL_CAFILE": "=none.pem"}, "none.pem cannot be read: No such file"),
    ("TLS", {"KAFKA_SSL_CAFILE": "=client.key"}, "client.key holds no certificate in PEM"),
    ("TLS", {"KAFKA_SSL_CAFILE": "="}, "cannot be read: Is a directory"),
    ("OLDTLS", {}, "is not valid now: certificate has expired"),
    ("MUTUAL", {"KAFKA_SSL_CERTFILE": None, "KAFKA_SSL_KEYFILE": None}, "asks for a certificate"),
    (
        "MUTUAL",
        {"KAFKA_SSL_CERTFILE": "=unknown.crt", "KAFKA_SSL_KEYFILE": "=unknown.key"},
        "refuses the certificate KAFKA_SSL_CERTFILE=",
    ),
    (
        "MUTUAL",
        {"KAFKA_SSL_CERTFILE": "=expired.crt", "KAFKA_SSL_KEYFILE": "=expired.key"},
        "it has expired, or",
    ),
    ("MUTUAL", {"KAFKA_SSL_KEYFILE": None}, "holds no private key in PEM; set KAFKA_SSL_KEYFILE"),
    ("MUTUAL", {"KAFKA_SSL_CERTFILE": None}, "KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE"),
    ("MUTUAL", {"KAFKA_SSL_CERTFILE": "=none.crt"}, "KAFKA_SSL_CERTFILE="),
    ("MUTUAL", {"KAFKA_SSL_CERTFILE": "=client.key"}, "client.key holds no certificate in PEM"),
    ("MUTUAL", {"KAFKA_SSL_KEYFILE": "=none.key"}, "none.key cannot be read: No such file"),
    ("MUTUAL", {"KAFKA_SSL_KEYFILE": "=client.crt"}, "client.crt holds no private key in PEM"),
    ("MUTUAL", {"KAFKA_SSL_KEYFILE": "=server.key"}, "is not the one of KAFKA_SSL_CERTFILE="),
    ("MUTUAL", {"KAFKA_SSL_KEYFILE": "=client.locked.key"}, "is encrypted; set KAFKA_SSL_PASSWORD"),
    (
        "MUTUAL",
        {"KAFKA_SSL_KEYFILE": "=client.locked.key", "KAFKA_SSL_PASSWORD": "hunter2"},
        "KAFKA_SSL_PASSWORD does not open the key",
    ),
    ("TLS", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "speaks TLS: set KAFKA_SECURITY_PROTOCOL to"),
    ("MUTUAL", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "speaks TLS"),
    (
        "SASLTLS",
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
        "KAFKA_SECURITY_PROTOCOL to SASL_SSL",
    ),
    ("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "@PLAIN"}, "speaks no TLS"),
    ("SASLTLS", {"KAFKA_BOOTSTRAP_SERVERS": "@SASL"}, "speaks no TLS"),
    ("PLAIN", {"KAFKA_BOOTSTRAP_SERVERS": "@SASL"}, "wants SASL (PLAIN, SCRAM-SHA-256)"),
    ("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "@SASLTLS"}, "wants SASL (PLAIN, SCRAM-SHA-256)"),
    ("SASL", {"KAFKA_BOOTSTRAP_SERVERS": "@PLAIN"}, "wants no SASL"),
    ("SASLTLS", {"KAFKA_BOOTSTRAP_SERVERS": "@TLS"}, "wants no SASL"),
]


@pytest.mark.parametrize(("listener", "change", "cause"), WRONG)
def test_what_waiting_cannot_heal_is_told_with_its_cause_at_the_start(
    start: Start, listener: str, change: Change, cause: str
) -> None:
    with pytest.raises(AccessRefused) as refused:
        start(listener, change)
    assert cause in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_certificate_for_another_host_name_is_told(start: Start, secure: SecureKafka) -> None:
    named = secure.address["TLS"].replace("127.0.0.1", "localhost")
    with pytest.raises(AccessRefused, match="is for another host name"):
        start("TLS", {"KAFKA_BOOTSTRAP_SERVERS": named})


@pytest.mark.parametrize(
    ("listener", "change"),
    [
        *((listener, {}) for listener in ("PLAIN", "TLS", "MUTUAL")),
        ("MUTUAL", {"KAFKA_SSL_KEYFILE": "=client.locked.key", "KAFKA_SSL_PASSWORD": KEY_PASSWORD}),
        ("MUTUAL", {"KAFKA_SSL_CERTFILE": "=client.pem", "KAFKA_SSL_KEYFILE": None}),
    ],
)
def test_right_settings_create_the_topic_and_read_it(
    start: Start, listener: str, change: Change
) -> None:
    settings = start(listener, change)
    assert list(read_topic(settings, settings.kafka_topic)) == []


def test_a_broker_that_is_away_does_not_hide_that_another_one_lets_the_process_in(
    start: Start, secure: SecureKafka
) -> None:
    servers = f"127.0.0.1:1,{secure.address['TLS']}"
    check_access(start.settings("TLS", {"KAFKA_BOOTSTRAP_SERVERS": servers}))


def test_a_broker_that_is_away_is_no_refusal(start: Start) -> None:
    with pytest.raises(OSError, match="refused"):
        check_access(start.settings("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}))


def test_every_command_that_reaches_kafka_ends_with_code_2_and_one_line(
    secure: SecureKafka, tmp_path: Path
) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text("user_id,item_id\nu1,i1\n")
    commands = (
        ["consumer"], ["serving"], ["publish", str(file)], ["forget", "u1"], ["status"],
        ["dead-letters", "list"], ["dead-letters", "re-inject"],
    )  # fmt: skip
    for command in commands:
        lines = refused(secure, command, tmp_path)
        assert [line for line in lines if "KAFKA_SASL_USERNAME=app" in line] == lines[-1:]


@pytest.mark.long
def test_up_ends_with_code_2_where_kafka_refuses_a_password(
    secure: SecureKafka, tmp_path: Path
) -> None:
    # It ends its children too, each of which may take 10 s.
    assert refused(secure, ["up"], tmp_path, seconds=PATIENCE)


def refused(
    secure: SecureKafka, command: Sequence[str], folder: Path, seconds: float = SOON
) -> list[str]:
    """What a command with a wrong password says on standard error."""
    env = os.environ | environment(secure, "SASLTLS", {"KAFKA_SASL_PASSWORD": "hunter2"})
    env |= {"EDGE_STORE": str(folder / "edges"), "MODEL_STORE": str(folder / "models")}
    ended = run(command, env, folder, seconds=seconds)
    assert ended.returncode == 2, (command, ended.stderr)
    assert "refuses KAFKA_SASL_USERNAME=app" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()
