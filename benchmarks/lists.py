"""Lists into Redis, and what they take there.

publish: lists of 50 items, already scored, from arrays to values in Redis, against `redis-benchmark
-t set -P 100 -c 1` with values of the same size, in turn on the same Redis. In bulk, and in the
small parts that serving writes while it ranks the next ones.

bytes: growth of Redis' `used_memory` for each list, key and all, against the README's formula.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis

from benchmarks.synthetic import Result
from serving.lists.encoding import Lists, encode, quoted
from serving.lists.recommender import PART
from serving.redis.store import Store
from tests import services

ROUNDS = 3
BULK = 1_024  # lists
N_ITEMS = 50_000
NOW = 1_764_022_200_000
PREFIX, VERSION = "streamgcn", "20261124T181059.159873Z"


def scored(n_users: int, k: int) -> Lists:
    """Lists as scoring leaves them; the scores as a blend's are: some spread, the best apart."""
    rng = np.random.default_rng(0)
    scores = np.sort(6 + rng.gamma(2.0, 2.0, (n_users, k)).astype(np.float32))[:, ::-1]
    items, because = (rng.integers(0, N_ITEMS, (n_users, k)) for _ in range(2))
    return Lists(items, scores, because, np.full(n_users, k), np.full(n_users, NOW))


def names(letter: str, n: int, length: int) -> list[str]:
    """Ids of `length` characters."""
    return [f"{letter}{number:0{length - 1}d}" for number in range(n)]


def fill(store: Store, users: list[str], items: pa.Array, lists: Lists, size: int = BULK) -> None:
    """All lists by the product's own way from arrays to Redis, `size` at a time."""
    for begin in range(0, len(users), size):
        block = slice(begin, begin + size)
        made = encode(
            Lists(
                lists.items[block],
                lists.scores[block],
                lists.because[block],
                lists.counts[block],
                lists.event_at[block],
            ),
            items,
            VERSION,
            ["model"] * len(users[block]),
            NOW,
        )
        store.put_users(users[block], made)


def publish(n_users: int, k: int = 50) -> Result:
    """Lists a second over redis-benchmark's SETs a second, the median of rounds in turn."""
    users, items = names("u", n_users, 8), quoted(pa.array(names("i", N_ITEMS, 8)))
    lists = scored(n_users, k)
    rounds = []
    with tempfile.TemporaryDirectory() as name, services.real_redis(Path(name)) as url:
        client, store = redis.Redis.from_url(url), Store(url, PREFIX)
        for _ in range(ROUNDS):
            rates = []
            for size in (BULK, PART):
                begun = time.monotonic()
                fill(store, users, items, lists, size)
                rates.append(n_users / (time.monotonic() - begun))
            length = round(np.mean([client.strlen(f"{PREFIX}:rec:{user}") for user in users[:500]]))
            sets = limit(url, n_users, length)
            rounds.append((rates[0] / sets, rates[1] / sets, rates[0], sets))
        store.close()
    ratio, _, rate, sets = sorted(rounds)[ROUNDS // 2]
    return {
        "users": n_users,
        "k": k,
        "value_bytes": length,
        "lists_per_s": round(rate),
        "redis_benchmark_per_s": round(sets),
        "ratio": round(ratio, 3),
        "ratios": [round(each, 3) for each, *_ in rounds],
        f"ratios_of_{PART}_at_a_time": [round(each, 3) for _, each, *_ in rounds],
    }


def limit(url: str, n: int, size: int) -> float:
    """SETs a second of redis-benchmark."""
    binary = shutil.which("redis-benchmark")
    if binary is None:
        sys.exit("there is no redis-benchmark on PATH; install Redis' tools (Debian: redis-tools)")
    port = url.rsplit(":", 1)[1].split("/")[0]
    command = [binary, "-p", port, "-t", "set", "-P", "100", "-c", "1"]
    command += ["-n", str(n), "-d", str(size), "--csv"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))


def expected(length: int, k: int) -> float:
    """Bytes a user: the README's formula, for ids of `length` bytes and lists of k items."""
    return k * (2.14 * length + 16) + 250


def memory(n_users: int) -> Result:
    """Bytes a user and seconds to fill, for lists of 10 to 100 items and ids of 8 and 24 bytes."""
    made: Result = {}
    for k in (10, 50, 100):
        lists = scored(n_users, k)
        for length in (8, 24):
            users, items = (
                names("u", n_users, length),
                quoted(pa.array(names("i", N_ITEMS, length))),
            )
            with tempfile.TemporaryDirectory() as name, services.real_redis(Path(name)) as url:
                client, store = redis.Redis.from_url(url), Store(url, PREFIX)
                before, begun = client.info("memory")["used_memory"], time.monotonic()
                fill(store, users, items, lists)
                seconds = time.monotonic() - begun
                store.close()
                memory = client.info("memory")
            measured = (memory["used_memory"] - before) / n_users
            made[f"{k} items, ids of {length}"] = {
                "bytes_a_user": round(measured),
                "formula": round(expected(length, k)),
                "off": round(expected(length, k) / measured - 1, 3),
                "seconds_to_fill": round(seconds, 2),
            }
    worst = max(abs(each["off"]) for each in made.values())
    assert worst < 0.1, made
    return made | {"users": n_users, "allocator": memory["mem_allocator"], "worst": worst}
