"""Memory of trainer and serving while they read an edge store with a long history.

python -m benchmarks.bench_history --edges 1000000 --times 1 10

Makes an edge store of about so many edges for each of the times: with one event of each, or with so
many, all edges in turn. Prints JSON: what a process that reads the store as the trainer does, and
one that does as serving does, has resident at most and at the end, in MB, beyond what it had before
it read, the seconds, and the ratios of these to those of the first one of the times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.store import EdgeStore
from tests.memory import memory

TOPIC = "t"
COMMIT_ROWS = 500_000
BEGAN_US = 1_767_225_600_000_000  # of the first event


def fill(place: str, edges: int, times: int) -> None:
    """An edge store in which each of so many edges has so many events, all edges in turn.

    A user has 20 edges, an item 50, and ids have 8 to 9 bytes.
    """
    store = EdgeStore.begin(place, TOPIC)
    log = store.newest()
    users = np.arange(edges) // 20
    items = np.random.default_rng(0).integers(0, max(1, edges // 50), edges)
    for begin in range(0, edges * times, COMMIT_ROWS):
        numbers = np.arange(begin, min(begin + COMMIT_ROWS, edges * times))
        pair = numbers % edges
        columns = {
            "user_id": names("u", users[pair]),
            "item_id": names("i", items[pair]),
            "interaction": pa.array(np.ones(len(pair))),
            "timestamp": pa.array(BEGAN_US + numbers * 1_000).cast(SCHEMA.field("timestamp").type),
            "type": pa.repeat("view", len(pair)),
            "kafka_partition": pa.array(np.zeros(len(pair), np.int32)),
            "kafka_offset": pa.array(numbers),
        }
        rows = taken(pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA), BEGAN_US)
        store.append(rows, {0: begin or None}, {0: begin + len(pair)}, log)
    store.tidy()  # as the consumer does after each hundred commits


def names(kind: str, numbers: np.ndarray) -> pa.Array:
    """An id for each number."""
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(kind, padded, "")


def as_trainer(place: str) -> Callable[[], int]:
    """Reads the store as the trainer does, and gives the number of edges."""
    from trainer.graph.stored import StoredGraph
    from trainer.graph.weights import Weighing

    stored = StoredGraph(place, TOPIC, Weighing(), None)

    def read() -> int:
        for _ in stored.read():
            pass
        return len(stored.graph)

    return read


def as_serving(place: str) -> Callable[[], int]:
    """Reads the store as serving does when it starts, and gives the number of edges."""
    from serving.edges.user_edges import UserEdges
    from trainer.graph.weights import Weighing

    edges = UserEdges(Weighing())

    def read() -> int:
        edges.grow(EdgeStore(place, TOPIC))
        return len(edges.graph)

    return read


READERS = {"trainer": as_trainer, "serving": as_serving}


def read_here(kind: str, place: str) -> None:
    """Be the process that reads, and print the figures."""
    read = READERS[kind](place)
    began, before = time.monotonic(), memory("VmRSS")
    edges = read()
    seconds = time.monotonic() - began
    most, held = memory("VmHWM") - before, memory("VmRSS") - before
    print(json.dumps({"edges": edges, "most": most, "held": held, "seconds": seconds}))


def measured(kind: str, place: str) -> dict[str, float]:
    """The figures of a process that reads."""
    command = [sys.executable, "-m", "benchmarks.bench_history", "--read", kind, place]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    most, held = (round(found[name] / 1e6) for name in ("most", "held"))
    return {
        "edges": found["edges"], "peak_mb": most, "held_mb": held,
        "seconds": round(found["seconds"], 1),
    }  # fmt: skip


def main() -> None:
    """Measure, or be one of the processes that read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--folder", help="where the edge stores are made, and deleted again")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read_here(*given.read)
        return
    result: dict[str, object] = {}
    first: dict[str, dict[str, float]] = {}
    for times in given.times:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            place = str(Path(folder) / "edges")
            fill(place, given.edges, times)
            for kind in READERS:
                found = measured(kind, place)
                to = first.setdefault(kind, found)
                ratios = {
                    f"{name}_ratio": round(found[name] / max(to[name], 0.1), 2)
                    for name in ("peak_mb", "held_mb", "seconds")
                }
                result[f"{kind}, {times} events an edge"] = found | ratios
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
