"""Serving against its limits and rivals, one JSON object a part; names choose among them.

freshness  seconds from an event to its user's new list in Redis, at 100, 1,000 and 5,000 events/s
retraining the same at 1,000 events/s while a trainer trains and the new model is taken up
takeover   the same when one of two serving processes is killed, at the first of the rates
refill     seconds until all lists are back when Redis is killed and comes back empty
publish    lists from arrays to Redis against redis-benchmark's SETs of the same size
scoring    users/s against torch's matmul and topk and against faiss' exact search
bytes      bytes a user in Redis against the README's formula
fold_in    recall of folded-in lists against that of retrained ones, on Gowalla

freshness and scoring are measured with a model of three parts without order, and with one of four
parts with it; the others with three parts. freshness, retraining, takeover and refill need an
Apache Kafka, named by KAFKA_HOME; publish redis-benchmark on PATH (Debian's redis-tools); fold_in
the data that bench_gowalla.py needs. Each part's file says what it does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from benchmarks.faults import refill, takeover
from benchmarks.fold_in import fold_in
from benchmarks.freshness import freshness, retraining
from benchmarks.lists import memory, publish
from benchmarks.scoring import scoring
from benchmarks.synthetic import Result, Sizes

RETRAINING_RATE = 1_000  # events/s


def of_both(part: Callable[..., Result], sizes: Sizes, shop: Path, *more: object) -> Result:
    """A part for the model of three parts without order, and for the one of four parts with it."""
    made: Result = {}
    for name, order in (("three parts", False), ("four parts", True)):
        folder = shop / "four parts" if order else shop
        folder.mkdir(exist_ok=True)
        made[name] = part(sizes._replace(order=order), folder, *more)
    return made


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--users", type=int, default=Sizes().users)
    parser.add_argument("--items", type=int, default=Sizes().items)
    parser.add_argument("--edges", type=int, default=Sizes().edges)
    parser.add_argument("--shop", type=Path, help="folder in which the model is kept for next time")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 1_000, 5_000])
    parser.add_argument("--seconds", type=float, default=30.0, help="at each rate")
    parser.add_argument("--vectors", type=int, default=1_024, help="of fold_in's low pass")
    parser.add_argument("--epochs", type=int, default=150, help="of fold_in's learned part")
    given = parser.parse_args()
    sizes = Sizes(given.users, given.items, given.edges)
    with nullcontext(given.shop) if given.shop else tempfile.TemporaryDirectory() as name:
        shop = Path(name)
        shop.mkdir(exist_ok=True)
        parts = {
            "freshness": lambda: of_both(freshness, sizes, shop, given.rates, given.seconds),
            "retraining": lambda: retraining(sizes, shop, RETRAINING_RATE, given.seconds),
            "takeover": lambda: takeover(sizes, shop, given.rates[0], given.seconds),
            "refill": lambda: refill(sizes, shop, given.rates[0]),
            "publish": lambda: publish(given.users),
            "scoring": lambda: of_both(scoring, sizes, shop),
            "bytes": lambda: memory(min(given.users, 20_000)),
            "fold_in": lambda: fold_in(given.vectors, given.epochs),
        }
        for part in given.parts or parts:
            if part not in parts:
                parser.error(f"there is no part {part}, only {', '.join(parts)}")
            print(json.dumps({part: parts[part]()}, indent=2), flush=True)


if __name__ == "__main__":
    main()
