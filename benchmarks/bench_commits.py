"""Several processes that commit small batches to one edge store, on a disk and on an S3 server.

python -m benchmarks.bench_commits --writers 4 --seconds 30

Prints JSON: for a disk and for moto's server, for writers that commit every second and for writers
that never wait: commits a second of all, conflicts a commit, commits that were given up after all
tries (a consumer begins them anew), milliseconds of a commit. Writers that commit every second
begin in step, which is the worst case. `--waits no` tries again at once after a conflict, and
`--jitter 0.2` draws a fifth of the time between two commits at random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from consumer.edge import conflicts
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.store import Conflict, EdgeStore
from tests.s3 import s3_server

ROWS = 100  # of a batch


def batch(partition: int, offset: int) -> pa.Table:
    """Rows of one partition."""
    columns = [
        [f"u{n}" for n in range(ROWS)], ["i"] * ROWS, [1.0] * ROWS, ["view"] * ROWS,
        pa.array([0] * ROWS, SCHEMA.field("timestamp").type),
        pa.array([partition] * ROWS, pa.int32()),
        pa.array(range(offset, offset + ROWS), pa.int64()),
    ]  # fmt: skip
    return taken(pa.table(columns, schema=SCHEMA), time.time_ns() // 1000)


def write(given: argparse.Namespace) -> None:
    """Say "ready", wait for a line, commit for some seconds, and print the figures."""
    store = EdgeStore(given.uri, "t")
    log, number = store.newest(), int(given.partition)
    chance = np.random.default_rng(number)
    took, offset, given_up = [], 0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    due = begin = time.monotonic()
    while time.monotonic() < begin + given.seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        due = time.monotonic() + given.every * (1 - given.jitter * chance.random())
        started = time.monotonic()
        while True:
            try:
                store.append(batch(number, offset), {number: offset}, {number: offset + ROWS}, log)
                break
            except Conflict:
                given_up += 1
        took.append(time.monotonic() - started)
        offset += ROWS
    print(json.dumps({"took": took, "conflicts": store.conflicts, "given_up": given_up}))


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    """By name: a place on the disk and one on the S3 server; this process has the credentials."""
    with s3_server(folder) as server:
        os.environ.update(server.environment)
        yield {"disk": str(folder / "edges"), "s3": f"s3://{server.bucket()}/edges"}


def measured(uri: str, given: argparse.Namespace, every: float) -> dict[str, Any]:
    """The figures of all writers together."""
    EdgeStore.begin(uri, "t")
    command = [
        sys.executable, "-m", "benchmarks.bench_commits", "--waits", given.waits,
        "--seconds", str(given.seconds), "--every", str(every), "--jitter", str(given.jitter),
        "--uri", uri,
    ]  # fmt: skip
    writers = [
        subprocess.Popen(
            [*command, "--partition", str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(given.writers)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    found = [json.loads(writer.communicate()[0]) for writer in writers]
    took = np.concatenate([each["took"] for each in found]) * 1000
    assert EdgeStore(uri, "t").count() == len(took) * ROWS
    return {
        "commits_per_second": round(len(took) / given.seconds, 1),
        "conflicts_per_commit": round(sum(each["conflicts"] for each in found) / len(took), 2),
        "given_up": sum(each["given_up"] for each in found),
        "commit_ms_p50": round(float(np.percentile(took, 50))),
        "commit_ms_p99": round(float(np.percentile(took, 99))),
    }


def main() -> None:
    """Measure, or be one of the writers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--waits", choices=("yes", "no"), default="yes")
    parser.add_argument("--jitter", type=float, default=0.0)
    for name in ("--every", "--partition"):
        parser.add_argument(name, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.waits == "no":
        conflicts.FIRST_SECONDS = conflicts.LONGEST_SECONDS = 0.0
    if given.uri:
        write(given)
        return
    with tempfile.TemporaryDirectory() as name, places(Path(name)) as of:
        result = {
            f"{place} {kind}": measured(f"{uri}-{kind}", given, every)
            for place, uri in of.items()
            for kind, every in (("second", 1.0), ("at-once", 0.0))
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
