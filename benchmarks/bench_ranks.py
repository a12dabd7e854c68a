"""One training on several ranks of torchrun against the same on one, one JSON object a benchmark.

quality  ml-latest-small, newest tenth of each user held out, defaults: recall of two and four ranks
         against one process
memory   an edge store of MILLIONS (of the environment, 5 without it) of edges, 50 a user and 250 an
         item, in order: peak memory of the largest of four and two ranks against one process, from
         reading to a snapshot that is written, and in the training after it; numbers given, few
         steps
traffic  bytes that a rank of two gives to the other in a step of next items and in a round of the
         low pass, against what is to be expected

    python -m benchmarks.bench_ranks [quality memory traffic]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.named import run_named
from benchmarks.ranks import Found

SIZES = (1, 4, 2)


def run(benchmark: str, size: int, folder: Path) -> list[Found]:
    """What each of so many ranks says of a benchmark."""
    command = [sys.executable, "-m"]
    if size > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(size), "-m"]
    command += ["benchmarks.ranks", benchmark, str(folder)]
    threads = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size))}
    subprocess.run(command, env=threads, check=True)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def quality() -> Found:
    """Recall and NDCG by the number of ranks, and what they are of one process's."""
    made: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            made[str(size)] = run("quality", size, Path(folder))[0]
    for size in SIZES[1:]:
        for name in ("recall@20", "ndcg@20"):
            made[f"{name} of {size} over 1"] = made[str(size)][name] / made["1"][name]
    return made


def memory() -> Found:
    """Peak memory by the number of ranks, and what it is of one process's."""
    with tempfile.TemporaryDirectory() as folder:
        run("store", 1, Path(folder))
        made: Found = {}
        for size in SIZES:
            found = run("memory", size, Path(folder))
            largest = max(found, key=lambda each: float(each["peak_mb"]))
            made[str(size)] = largest | {"seconds": max(each["seconds"] for each in found)}
        for size in SIZES[1:]:
            for name in ("peak_mb", "peak_over_empty_mb"):
                made[f"{name} of {size} over 1"] = made[str(size)][name] / made["1"][name]
    return made


def traffic() -> Found:
    """Bytes by what was trained, and what they are of those to be expected."""
    with tempfile.TemporaryDirectory() as folder:
        found = run("traffic", 2, Path(folder))[0]
    for name in ("step", "round"):
        found[f"{name} over expected"] = found[f"{name} bytes"] / found[f"{name} expected"]
    return found


BENCHMARKS = (quality, memory, traffic)

if __name__ == "__main__":
    run_named(BENCHMARKS)
