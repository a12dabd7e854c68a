"""Runs the benchmarks that the command line names, or all of them, and prints the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Benchmark = Callable[[], Mapping[str, Any]]


def run_named(benchmarks: Sequence[Benchmark]) -> None:
    """Print JSON for each, as soon as it has ended; a benchmark has the name of the function."""
    known = {benchmark.__name__: benchmark for benchmark in benchmarks}
    for name in sys.argv[1:]:
        if name not in known:
            sys.exit(f"{name} is no benchmark of these: {', '.join(known)}")
    for name, benchmark in known.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            print(json.dumps({name: benchmark()}, indent=2), flush=True)
