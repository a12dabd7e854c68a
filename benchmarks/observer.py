"""The observer of the freshness benchmark: seconds until an event of a sampled user can be read.

Redis tells the observer of each write of a user whose id ends in 7, a tenth of all (keyspace
notifications, matched by Redis). The observer then reads the value: the user's events up to the
value's `event_at` are readable from then on. So each sampled event is timed until it is seen in a
value, the observer's own delay included, whatever else was written in between.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict, deque

import numpy as np
import redis

SAMPLED = "7"  # last digit of the users that are observed
LOGGED = re.compile(r"(freshness_p\d+_ms)=(\d+)")
EVENT_AT = re.compile(rb'"event_at":(\d+)')


class Observer(threading.Thread):
    """Seconds from each sampled event to a value that reflects it."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(daemon=True)
        self._redis = redis.Redis.from_url(url)
        self._redis.config_set("notify-keyspace-events", "K$")
        self._start = f"{prefix}:rec:".encode()
        self._told = self._redis.pubsub(ignore_subscribe_messages=True)
        self._told.psubscribe(f"__keyspace@0__:{prefix}:rec:*{SAMPLED}")
        self._waiting: dict[bytes, deque[int]] = defaultdict(deque)  # timestamps by user
        self._lock = threading.Lock()
        self.waits: list[float] = []
        self.stop = threading.Event()

    def sent(self, user: str, timestamp: int) -> None:
        """Wait for this event, if its user is sampled; to be called before it is sent."""
        if user.endswith(SAMPLED):
            with self._lock:
                self._waiting[user.encode()].append(timestamp)

    def left(self) -> int:
        """Events not seen yet."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def take(self) -> list[float]:
        """The waits so far, infinite for what was not seen; both are cleared."""
        with self._lock:
            waits = self.waits + [float("inf")] * sum(map(len, self._waiting.values()))
            self._waiting.clear()
            self.waits = []
        return waits

    def run(self) -> None:
        """Read what was written, in batches."""
        while not self.stop.is_set():
            written: set[bytes] = set()
            message = self._told.get_message(timeout=0.1)
            while message:
                written.add(message["channel"].split(b":", 1)[1])
                message = self._told.get_message() if len(written) < 500 else None
            keys = list(written)
            for key, value in zip(keys, self._redis.mget(keys) if keys else [], strict=True):
                self._seen(key.removeprefix(self._start), value)

    def _seen(self, user: bytes, value: bytes | str | None) -> None:
        now = time.time() * 1000
        found = EVENT_AT.search(value) if isinstance(value, bytes) else None
        with self._lock:
            events = self._waiting.get(user)
            while found and events and events[0] <= int(found[1]):
                self.waits.append((now - events.popleft()) / 1000)


def logged_figures(text: str) -> dict[str, list[int]]:
    """freshness_p... of serving's own lines of figures: the lines' median and their worst."""
    found: dict[str, list[int]] = defaultdict(list)
    for name, value in LOGGED.findall(text):
        found[name].append(int(value))
    return {name: [int(np.median(each)), max(each)] for name, each in found.items()}
