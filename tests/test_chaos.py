import os
from pathlib import Path

import pytest

from tests import chaos, services

# A client whose broker is killed while it connects leaves a socket open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_every_event_is_stored_once_while_consumers_and_an_apache_kafka_are_killed(
    tmp_path: Path,
) -> None:
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    with services.apache_kafka(tmp_path) as broker:
        chaos.run(broker, tmp_path, events=200_000, kills=30, broker_kills=2)


def test_every_event_is_stored_once_while_consumers_of_the_embedded_broker_are_killed(
    tmp_path: Path,
) -> None:
    with services.embedded_kafka(tmp_path) as broker:
        chaos.run(broker, tmp_path, events=20_000, kills=6, broker_kills=0)
