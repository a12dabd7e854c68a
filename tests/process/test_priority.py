"""The trainer leaves the processors to what has to answer at once."""

import os
import subprocess
import sys

import pytest

from process.priority import NICENESS, WHILE_WAITING, sleep_while_waiting

TOLD = """
import os
from process.priority import OF_SESSION, yield_to_others
yield_to_others()
yield_to_others()
print(os.nice(0), OF_SESSION.read_text() if OF_SESSION.exists() else "")
"""


@pytest.mark.parametrize("own_session", [True, False])
def test_a_process_that_yields_lowers_its_session_only_if_nobody_else_is_in_it(
    own_session: bool,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TOLD],
        start_new_session=own_session,
        capture_output=True,
        text=True,
        check=True,
    )
    niceness, *session = ended.stdout.split()
    assert int(niceness) >= NICENESS
    if session:  # Linux tells nothing of a process whose ancestors never began a session
        assert (session[-1] == str(NICENESS)) == own_session


def test_threads_sleep_while_they_wait_unless_the_operator_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(WHILE_WAITING, "ACTIVE")
    sleep_while_waiting()
    assert os.environ[WHILE_WAITING] == "ACTIVE"
    monkeypatch.delenv(WHILE_WAITING)
    sleep_while_waiting()
    assert os.environ[WHILE_WAITING] == "PASSIVE"


def test_a_command_does_not_import_torch_before_it_says_how_threads_wait() -> None:
    """OpenMP reads that when torch is imported."""
    code = "import sys, streamgcn.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
