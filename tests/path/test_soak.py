"""tests/soak.py for a minute, in a process of its own."""

import os
import subprocess
import sys

import pytest

from tests.services import ROOT


@pytest.mark.long
def test_all_is_right_after_a_minute_in_which_each_process_is_killed_now_and_then() -> None:
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    command = [sys.executable, "-m", "tests.soak", "--minutes", "1", "--seed", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
