"""Fixtures: brokers and a Redis, started once by each worker of pytest-xdist."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import services
from tests.secure import SecureKafka, secure_kafka

# An Apache Kafka runs for minutes here: the best of the JVM's compilers would cost it more CPU
# than the faster code gives back.
os.environ.setdefault("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.embedded_kafka(tmp_path_factory.mktemp("embedded")) as broker:
        yield broker.address


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    with services.apache_kafka(tmp_path_factory.mktemp("apache")) as broker:
        yield broker.address


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """An Apache Kafka with TLS, SASL and rights."""
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    with secure_kafka(tmp_path_factory.mktemp("secure")) as broker:
        yield broker


@pytest.fixture(scope="session", params=["embedded", "apache"])
def kafka(request: pytest.FixtureRequest) -> str:
    """Address of a broker; each test of the path runs with both kinds."""
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.real_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url
