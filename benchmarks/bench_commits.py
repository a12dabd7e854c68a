"""Several processes that commit small batches to one edge store, on a disk and on an S3 server.

python -m benchmarks.bench_commits --writers 4 --seconds 30

Prints JSON: for a disk and for moto's server, for writers that commit every second and for writers
that never wait: commits a second of all, conflicts a commit, milliseconds of a commit. Writers that
commit every second begin in step, which is the worst case. `--waits no` tries again at once after a
conflict, and `--jitter 0.2` lets a fifth of the time between two commits be drawn at random.
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

from consumer.edge import conflicts
from consumer.edge.store import EdgeStore
from tests.graphs import append
from tests.s3 import s3_server

ROWS = 100  # of a batch
WARM_UP = 8.0  # seconds in which all writers have started


def write(
    uri: str, partition: int, begin: float, seconds: float, every: float, jitter: float
) -> None:
    """Commit until `begin + seconds`, epoch seconds; print what it took as JSON."""
    store = EdgeStore(uri, "t")
    chance = np.random.default_rng(partition)
    took, offset = [], 0
    time.sleep(max(0.0, begin - time.time()))
    due = begin
    while time.time() < begin + seconds:
        time.sleep(max(0.0, due - time.time()))
        due = max(time.time(), due) + every * (1 - jitter * chance.random())
        started = time.monotonic()
        append(store, [(f"u{n}", "i") for n in range(ROWS)], offset, partition)
        took.append(time.monotonic() - started)
        offset += ROWS
    print(json.dumps({"took": took, "conflicts": store.conflicts}))


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    """By name: a place on the disk and one on the S3 server; this process has the credentials."""
    with s3_server(folder) as server:
        os.environ.update(server.environment)
        yield {"disk": str(folder / "edges"), "s3": f"s3://{server.bucket()}/edges"}


def measured(uri: str, given: argparse.Namespace, every: float) -> dict[str, Any]:
    """The figures of all writers together."""
    EdgeStore.begin(uri, "t")
    begin = time.time() + WARM_UP
    command = [
        sys.executable, "-m", "benchmarks.bench_commits", "--waits", given.waits,
        "--seconds", str(given.seconds), "--every", str(every), "--jitter", str(given.jitter),
        "--begin", str(begin), "--uri", uri,
    ]  # fmt: skip
    writers = [
        subprocess.Popen([*command, "--partition", str(n)], stdout=subprocess.PIPE)
        for n in range(given.writers)
    ]
    found = [json.loads(writer.communicate()[0]) for writer in writers]
    took = np.concatenate([each["took"] for each in found]) * 1000
    assert EdgeStore(uri, "t").count() == len(took) * ROWS
    return {
        "commits_per_second": round(len(took) / given.seconds, 1),
        "conflicts_per_commit": round(sum(each["conflicts"] for each in found) / len(took), 2),
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
    for name in ("--every", "--begin", "--partition"):
        parser.add_argument(name, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.waits == "no":
        conflicts.FIRST_SECONDS = conflicts.LONGEST_SECONDS = 0.0
    if given.uri:
        number = int(given.partition)
        write(given.uri, number, given.begin, given.seconds, given.every, given.jitter)
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
