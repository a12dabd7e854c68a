"""What each of several serving processes holds, and what they do together.

python -m benchmarks.bench_scale --edges 15000000 --users 500000 --items 5000 --processes 1 2 4

Needs an Apache Kafka, named by KAFKA_HOME. A synthetic shop and a model of it, as in synthetic.py;
so many edges are drawn, some twice: ten million are left of the fifteen. They go through Kafka and
the consumer. Then, for each number of serving
processes over the same edge store, with an empty Redis at first:

memory    MB of each process twenty seconds after all lists are written, as proportional set size
          (PSS): a page that n processes share counts for 1/n in each. Interpreter, libraries and
          the model's items are in every process, so `more` is what a process has more than one that
          serves the same model over an empty edge store. Of that only anonymous memory counts: with
          PSS alone the libraries' files, shared by more processes, would make each one look
          smaller. No event is to a new item: else processes that start later would write all lists
          twice, the second time while this is measured, and hold more than those before.
rates     for each one, the lowest first: events/s that were sent, seconds from an event to its
          user's new list, cores of each process from the first event until the last list. A rate
          is held by all processes together if so many events were sent and 99 of 100 lists came
          within a second; held_per_s is the largest one that is held as all lower ones are. After a
          rate whose events were not all answered within a minute no higher one is sent:
          not_sent_per_s names these.
takeover  the worst of these seconds, at the lowest rate, when one of the processes is killed
          (SIGKILL).

Prints JSON. `ratio` is the largest process against the one process alone, or the fewest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path

import psutil
import redis

from benchmarks.freshness import LIMIT_SECONDS, PATIENCE, Running, measure, running
from benchmarks.synthetic import Result, Sizes
from consumer.edge.store import EdgeStore
from consumer.kafka.topics import PARTITIONS
from tests.services import wait_for

ALL_WRITTEN = "Wrote all lists"  # a line of the log
DELAY_MS = "3000"  # Kafka's default: so long a new group waits for more members
SENT = 0.98  # of a rate that is held, at least
SETTLING = 20.0  # seconds; the edge store's library gives back what it read within fifteen


def started(shown: Running, n: int) -> list[str]:
    """So many serving processes, which have written all lists to an empty Redis."""
    rooms = shown.rooms
    with redis.Redis.from_url(rooms.settings.redis_url) as client:
        client.flushall()
    names = [rooms.start_another("serving") for _ in range(n)]
    before = {name: rooms.log(name).count(ALL_WRITTEN) for name in names}
    wait_for(
        "all lists",
        lambda: (
            all(rooms.log(name).count(ALL_WRITTEN) > before[name] for name in names)
            and len(rooms.store.published(range(shown.partitions))) == shown.partitions
        ),
        PATIENCE,
    )
    return names


def megabytes(process: psutil.Process) -> tuple[float, float]:
    """PSS, and anonymous memory."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    kib = {name: int(text.split(f"\n{name}:")[1].split()[0]) for name in ("Pss", "Anonymous")}
    return kib["Pss"] * 1.024e-3, kib["Anonymous"] * 1.024e-3


def over_nothing(shown: Running, folder: Path) -> tuple[float, float]:
    """As `megabytes`, of a process that serves the same model over an edge store without rows."""
    rooms, topic = shown.rooms, "nothing"
    settings = {
        "KAFKA_TOPIC": topic, "KAFKA_GROUP": topic, "EDGE_STORE": str(folder / topic),
        "REDIS_PREFIX": topic,
    }  # fmt: skip
    EdgeStore.begin(settings["EDGE_STORE"], topic)
    names = [rooms.start_another("consumer", **settings)]
    names.append(rooms.start_another("serving", **settings))
    wait_for("all lists", lambda: ALL_WRITTEN in rooms.log(names[1]), PATIENCE)
    time.sleep(SETTLING)
    made = megabytes(psutil.Process(rooms.pid(names[1])))
    for name in names:
        rooms.stop(name)
    return made


def at_rate(shown: Running, rate: int, seconds: float, names: Sequence[str]) -> Result:
    """The figures of one rate, with these serving processes."""
    made = measure(shown, rate, seconds, serving=names)
    wanted = ("sent_per_s", "never_seen", "p50_s", "p99_s")
    cores = [made["cores"][name] for name in names]
    return {name: made[name] for name in wanted} | {"cores": cores}


def at_rates(
    shown: Running, rates: Sequence[int], seconds: float, names: Sequence[str]
) -> dict[int, Result]:
    """The figures of ascending rates, up to one whose events are not all answered in time.

    What was not answered then is by the end.
    """
    made: dict[int, Result] = {}
    for rate in rates:
        made[rate] = at_rate(shown, rate, seconds, names)
        if made[rate]["never_seen"]:
            shown.warm_up(PATIENCE)
            break
    return made


def is_held(rate: int, figures: Result) -> bool:
    """Whether these are the figures of a rate that the processes hold."""
    p99 = figures["p99_s"]
    return figures["sent_per_s"] >= SENT * rate and p99 is not None and p99 <= LIMIT_SECONDS


def several(shown: Running, n: int, rates: Sequence[int], seconds: float, nothing: float) -> Result:
    """The figures of so many processes; `nothing`: anonymous memory of one over no edges."""
    names = started(shown, n)
    time.sleep(SETTLING)
    memory = sorted(
        (megabytes(psutil.Process(shown.rooms.pid(name))) for name in names), reverse=True
    )
    made = at_rates(shown, rates, seconds, names)
    held = takewhile(lambda rate: is_held(rate, made[rate]), made)
    result: Result = {
        "memory_mb": [round(pss, 1) for pss, _ in memory],
        "more_mb": [round(own - nothing, 1) for _, own in memory],
        "rates": {f"{rate}/s": figures for rate, figures in made.items()},
        "held_per_s": max(held, default=0),
        "not_sent_per_s": [rate for rate in rates if rate not in made],
    }
    if n > 1:
        timer = threading.Timer(seconds / 4, shown.rooms.kill, [names.pop()])
        timer.start()
        taken_over = measure(shown, rates[0], seconds, serving=names)
        timer.join()
        result |= {
            "takeover_worst_s": taken_over["worst_s"],
            "takeover_never_seen": taken_over["never_seen"],
        }
    for name in names:
        shown.rooms.stop(name)
    print(f"{n}: {result}", file=sys.stderr)  # a run of many edges takes long
    return result


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--edges", type=int, default=15_000_000, help="drawn")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of the topic")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 500, 1000], help="events/s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--shop", type=Path, help="folder in which the model is kept for next time")
    given = parser.parse_args()
    sizes = Sizes(given.users, given.items, given.edges, order=True)
    with nullcontext(given.shop) if given.shop else tempfile.TemporaryDirectory() as name:
        shop = Path(name)
        shop.mkdir(exist_ok=True)
        edges = running(
            sizes, shop, False, given.partitions, group_initial_rebalance_delay_ms=DELAY_MS
        )
        with edges as shown, tempfile.TemporaryDirectory() as folder:
            shown.events.has_new_items = False
            n_edges, nothing = shown.rooms.rows(), over_nothing(shown, Path(folder))
            made = {
                n: several(shown, n, sorted(given.rates), given.seconds, nothing[1])
                for n in given.processes
            }
    alone = made[min(made)]
    for of in made.values():
        of["ratio_memory"] = round(of["memory_mb"][0] / alone["memory_mb"][0], 3)
        of["ratio_more"] = round(max(of["more_mb"]) / alone["more_mb"][0], 3)
    empty = [round(each, 1) for each in nothing]
    print(json.dumps({"edges": n_edges, "over_nothing_mb": empty, "serving": made}, indent=2))


if __name__ == "__main__":
    main()
