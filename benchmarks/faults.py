"""How soon lists are right again when a part is killed: a serving process, or Redis.

Everything runs as in freshness.py, which also says what is sent and how it is timed.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import cast

import redis

from benchmarks.events import NEW_ITEMS
from benchmarks.freshness import (
    WARM_UP_SECONDS,
    finite,
    measure,
    running,
)
from benchmarks.synthetic import Result, Sizes
from tests import services

TAKEOVER_LIMIT_SECONDS = 15.0
REFILL_LIMIT_SECONDS = 60.0
READING = "Reading partitions"  # a line of the log


def takeover(sizes: Sizes, shop: Path, rate: int, seconds: float) -> Result:
    """Seconds until an event is readable when one of two serving processes is killed (SIGKILL).

    Events go on at `rate`; the kill falls when a quarter of `seconds` is over.
    """
    with running(sizes, shop) as shown:
        rooms = shown.rooms
        other = rooms.start_another("serving")
        services.wait_for("the second process", lambda: READING in rooms.log(other), 300)
        shown.send(rate, WARM_UP_SECONDS)
        services.wait_for("both to answer", lambda: not shown.observer.left())
        shown.observer.take()
        assigned = rooms.log(other).splitlines()
        timer = threading.Timer(seconds / 4, rooms.kill, [other])
        timer.start()
        made = measure(shown, rate, seconds)
        timer.join()
    worst = cast(float | None, made["worst_s"])
    return {
        "killed_had": [line for line in assigned if READING in line][-1].split("INFO ")[-1],
        **made,
        "worst_over_limit": finite(worst / TAKEOVER_LIMIT_SECONDS) if worst else None,
    }


def refill(sizes: Sizes, shop: Path, rate: int) -> Result:
    """Seconds until all lists are there again when Redis is killed and comes back empty.

    Users' lists come first, then similar items. Events go on at `rate` meanwhile.
    """
    with running(sizes, shop) as shown:
        shown.observer.stop.set()
        shown.observer.join()
        sending = threading.Thread(target=shown.send, args=(rate, REFILL_LIMIT_SECONDS))
        sending.start()
        time.sleep(WARM_UP_SECONDS)
        shown.redis.kill_and_restart()
        begun = time.monotonic()
        with redis.Redis.from_url(shown.rooms.settings.redis_url) as client:
            services.wait_for(
                "users' lists", lambda: client.dbsize() > sizes.users + NEW_ITEMS, 300
            )
            users = time.monotonic() - begun
            # Written last.
            services.wait_for("all lists", lambda: shown.rooms.store.model(), 300)
            seconds = time.monotonic() - begun
            assert client.dbsize() >= sizes.users + sizes.items
        sending.join()
    return {
        "users_seconds": round(users, 1),
        "seconds": round(seconds, 1),
        "over_limit": round(seconds / REFILL_LIMIT_SECONDS, 3),
    }
