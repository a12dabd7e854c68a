"""Serving against its limits and rivals, one JSON object a part; names choose among them.

freshness  seconds from an event to its user's new list in Redis, at 100, 1,000 and 5,000 events/s
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path

from benchmarks.freshness import freshness
from benchmarks.synthetic import Sizes


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["freshness"])
    parser.add_argument("--users", type=int, default=Sizes().users)
    parser.add_argument("--items", type=int, default=Sizes().items)
    parser.add_argument("--edges", type=int, default=Sizes().edges)
    parser.add_argument("--shop", type=Path, help="folder in which the model is kept for next time")
    parser.add_argument("--rates", type=int, nargs="*", default=[100, 1_000, 5_000])
    parser.add_argument("--seconds", type=float, default=30.0, help="at each rate")
    given = parser.parse_args()
    sizes = Sizes(given.users, given.items, given.edges)
    with nullcontext(given.shop) if given.shop else tempfile.TemporaryDirectory() as name:
        shop = Path(name)
        parts = {
            "freshness": lambda: freshness(sizes, shop, given.rates, given.seconds),
        }
        for part in given.parts:
            print(json.dumps({part: parts[part]()}, indent=2), flush=True)


if __name__ == "__main__":
    main()
