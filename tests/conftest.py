"""Fixtures: brokers and a Redis. Each worker of pytest-xdist has its own, but for Apache Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import commands, services
from tests.s3 import S3, s3_server
from tests.secure import SecureKafka, secure_kafka
from tests.shared import common_folder, shared

# Threads of several workers that wait for one another on few cores spin; torch is imported later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# An Apache Kafka runs for minutes here: the best of the JVM's compilers would cost it more CPU
# than the faster code gives back.
os.environ.setdefault("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")

LONGEST = (
    "tests/path/", "tests/streamgcn/test_up.py", "tests/streamgcn/test_cli.py",
    "tests/consumer/test_rights.py", "tests/consumer/test_messages.py",
    "tests/consumer/test_bombs.py", "tests/serving/test_outage.py",
    "tests/consumer/test_letters.py", "tests/consumer/test_ingest.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """The workers of pytest-xdist share the process that forks for them."""
    if config.getoption("numprocesses", None) and commands.FORKING not in os.environ:
        stack = ExitStack()
        os.environ[commands.FORKING] = stack.enter_context(commands.forking())
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is left alone with one."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.embedded_kafka(tmp_path_factory.mktemp("embedded")) as broker:
        yield broker.address


@pytest.fixture(scope="session")
def apache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Apache Kafka of `apache` keeps `logs`."""
    return common_folder(tmp_path_factory, "apache")


@pytest.fixture(scope="session")
def apache(apache_folder: Path) -> Iterator[str]:
    """The one of all workers: a JVM takes CPU for seconds until it serves, and is slow at first."""
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    with shared(apache_folder, services.start_apache_kafka) as address:
        yield address


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """An Apache Kafka with TLS, SASL and rights."""
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    with secure_kafka(tmp_path_factory.mktemp("secure")) as broker:
        yield broker


@pytest.fixture(
    scope="session", params=["apache", pytest.param("embedded", marks=services.BESIDE_APACHE)]
)
def kafka(request: pytest.FixtureRequest) -> str:
    """Address of a broker, of each kind."""
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.real_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server
