"""tests/chaos.py in two forms shorter than its own, in a process of its own.

A client whose broker is killed while it connects leaves a socket open until it is collected.
"""

import os
import random
import subprocess
import sys
from itertools import product

import pytest

from tests import services
from tests.producers import CLIENTS, CODECS, MODES, PARTITIONERS, ways


def chaos(*arguments: str, without: str = "") -> None:
    env = {name: value for name, value in os.environ.items() if name != without}
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    ended = subprocess.run(command, env=env, cwd=services.ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_producers_of_the_chaos_have_every_codec_partitioner_and_mode_of_each_client() -> None:
    for seed in range(20):
        made = ways(random.Random(seed), transactions=True)
        assert {(way.client, way.codec) for way in made} == set(product(CLIENTS, CODECS))
        assert {(way.client, way.partitioner) for way in made} == set(
            product(CLIENTS, PARTITIONERS)
        )
        assert {(way.client, way.mode) for way in made} == set(product(CLIENTS, MODES))


@pytest.mark.parametrize(
    ("events", "kills"), [("2000", "1"), pytest.param("20000", "5", marks=pytest.mark.long)]
)
def test_every_event_is_stored_once_while_consumers_and_an_apache_kafka_are_killed(
    events: str, kills: str
) -> None:
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    chaos("--events", events, "--kills", kills, "--broker-kills", "1", "--seed", "1")


@pytest.mark.parametrize(
    ("events", "kills"),
    [
        pytest.param("2000", "1", marks=services.BESIDE_APACHE),
        pytest.param("10000", "3", marks=pytest.mark.long),
    ],
)
def test_every_event_is_stored_once_while_consumers_of_the_embedded_broker_are_killed(
    events: str, kills: str
) -> None:
    chaos("--events", events, "--kills", kills, "--seed", "1", without="KAFKA_HOME")
