"""Runs the benchmarks that the command line names, or all of them, and prints the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Benchmark = Callable[[], Mapping[str, Any]]


def run_named(benchmarks: Sequence[Benchmark]) -> None:
    """Print JSON for each, as soon as it has ended; a benchmark has the name of the function."""
    for benchmark in benchmarks:
        if len(sys.argv) == 1 or benchmark.__name__ in sys.argv[1:]:
            print(json.dumps({benchmark.__name__: benchmark()}, indent=2), flush=True)
