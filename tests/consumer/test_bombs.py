"""The memory that messages of up to 10 MiB can cause, in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from consumer.ingest.decode import BAD_ROWS
from consumer.ingest.stretches import MESSAGE_BYTES
from tests import bombs
from tests.bombs import Taken
from tests.commands import PATIENCE

PEAK = 200_000_000  # bytes, as docs/events.md says
POLL_PEAK = 600_000_000  # bytes, as docs/events.md says
# Each fifth one in the short run: the processes take most of the CPU of a minute.
MAKERS = [
    pytest.param(make, id=make.__name__, marks=[pytest.mark.long] if number % 5 else [])
    for number, make in enumerate(bombs.MAKERS)
]


def taken(kind: str, value: bytes, folder: Path) -> Taken:
    file = folder / kind
    file.write_bytes(value)
    command = [sys.executable, "-m", "tests.bombs", kind, str(file)]
    child = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    return msgspec.json.decode(child.stdout, type=Taken)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
@pytest.mark.parametrize("make", MAKERS)
def test_no_message_takes_more_memory_than_stated(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    value = make()
    assert len(value) <= MESSAGE_BYTES
    found = taken("message", value, tmp_path)
    assert found.bytes < PEAK
    assert found.letter_bytes <= MESSAGE_BYTES
    assert found.letters <= BAD_ROWS
    assert found.events or found.reason


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_a_compressed_batch_of_large_messages_is_read_piece_by_piece(tmp_path: Path) -> None:
    value = bombs.gzip_batch_of_large_messages()
    assert len(value) < 1_000_000
    found = taken("batch", value, tmp_path)
    assert found.events == 30
    assert found.bytes < PEAK / 2


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_a_poll_of_small_messages_that_each_expand_is_stored_piece_by_piece(tmp_path: Path) -> None:
    value = bombs.rows_of_long_ids_in_a_small_message()
    assert len(value) < 10_000
    found = taken("poll", value, tmp_path)
    assert found.events == 100_000 * bombs.POLLED
    assert found.bytes < POLL_PEAK


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_a_poll_of_small_messages_with_long_wrong_rows_is_rejected_piece_by_piece(
    tmp_path: Path,
) -> None:
    value = bombs.long_letters_of_a_small_message()
    assert len(value) < 10_000
    found = taken("poll", value, tmp_path)
    assert (found.events, found.letters) == (99 * bombs.POLLED, 100 * bombs.POLLED)
    assert found.letter_bytes > 10_000_000 * bombs.POLLED
    assert found.bytes < POLL_PEAK / 3
