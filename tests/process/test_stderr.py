"""What libraries write to stderr by themselves, in a process with a JSON log."""

import json
import subprocess
import sys
from pathlib import Path

from tests.services import PATIENCE

FRAME = """
import logging, os, sys
from process.running import running
with running("consumer", (), "json", "127.0.0.1", 0):
    log = logging.getLogger("consumer")
    log.info("begun")
{inside}
"""


def lines_of(inside: str, code: int, *arguments: str) -> list[str]:
    program = FRAME.format(inside="\n".join("    " + line for line in inside.split("\n")))
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.returncode == code, found.stderr
    return found.stderr.splitlines()


def test_what_a_library_writes_to_stderr_is_a_line_of_the_json_log_and_said_once() -> None:
    lines = lines_of(
        "for number in range(50):\n"
        "    os.write(2, b\"thread 'a' (%d) panicked\\nAlready shut \\x1b[31mdown\\n\" % number)\n"
        "log.info('ended')",
        0,
    )
    found = [json.loads(line)["message"] for line in lines]
    assert sorted(found) == [
        "A library says: Already shut \\x1b[31mdown",
        "A library says: thread 'a' (0) panicked",
        "begun",
        "ended",
    ]


def test_the_traceback_of_a_fault_is_seen() -> None:
    lines = lines_of("raise ZeroDivisionError('seen')", 1)
    assert lines[-1] == "ZeroDivisionError: seen"


FULL = """
import resource, signal
import pyarrow as pa
from consumer.edge.schema import SCHEMA
from consumer.edge.store import EdgeStore, StoreError
from consumer.edge.order import taken
store = EdgeStore.begin(sys.argv[1], "t")
made = store.begin_log("id", None)
n = 100_000
row = {"user_id": [str(i) for i in range(n)], "item_id": [str(i * 7) for i in range(n)]}
row |= {"interaction": [1.0] * n, "type": ["view"] * n, "timestamp": [0] * n}
row |= {"kafka_partition": [0] * n, "kafka_offset": list(range(n))}
rows = taken(pa.table(row).cast(SCHEMA), 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for _ in range(3):
    try:
        store.append(rows, {0: None}, {0: n}, made)
    except StoreError as error:
        log.warning("refused: %s", error)
"""


def test_a_full_disk_below_the_edge_store_leaves_a_json_log_json(tmp_path: Path) -> None:
    lines = lines_of(FULL.strip(), 0, str(tmp_path / "edges"))
    found = [json.loads(line) for line in lines]
    assert sum(line["message"].startswith("refused: ") for line in found) == 3
    from_libraries = [line["message"] for line in found if line["process"] == "libraries"]
    assert len(from_libraries) == len(set(from_libraries))
