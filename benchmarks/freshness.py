"""How soon an event is readable in Redis as its user's new list, seen from outside.

A broker, a Redis, `streamgcn consumer` and `streamgcn serving` run as they would; in `retraining` a
trainer as well. One JSON event a message (events.py) is sent at an even pace, stamped with the
moment of sending. The observer (observer.py) sees when an event of a sampled user can be read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import redis
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from benchmarks import synthetic
from benchmarks.bench_gowalla import published
from benchmarks.events import Events
from benchmarks.observer import Observer, logged_figures
from benchmarks.synthetic import Result, Sizes
from consumer.kafka.topics import PARTITIONS
from process.log import FIGURES_EVERY
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_command
from tests import services
from tests.commands import STREAMGCN, run
from tests.rooms import Process, Rooms
from tests.services import Broker
from trainer.model.model_file import written

PATIENCE = 3_600.0  # seconds each: publishing edges, storing them, all lists, what a rate has left
LEFT_SECONDS = 60.0  # that the events of one rate have to be answered after the last was sent
WARM_UP_RATE, WARM_UP_SECONDS = 100, 3.0
LIMIT_SECONDS = 1.0
LOOK_SECONDS = 0.5  # between two looks whether it is over
LISTS = r"(?:New lists are made from|Wrote all lists of) model (\S+?)[; ]"  # of serving's log
EPOCHS, VECTORS = 30, 256  # of the training in `retraining`, which is measured to its end


class OwnProcesses(Rooms):
    """Rooms that start as an operator starts them, and not as forks that have one thread."""

    def process(self, room: str, env: Mapping[str, str], log: IO[bytes]) -> Process:
        """As the name says."""
        return subprocess.Popen([*STREAMGCN, room], env=dict(env), stderr=log)


def freshness(sizes: Sizes, shop: Path, rates: Sequence[int], seconds: float) -> Result:
    """Seconds until an event is readable, at each rate in turn, and what it took."""
    with running(sizes, shop) as shown:
        made: Result = {"seconds_to_first_publish": shown.ready}
        for rate in rates:
            made[f"{rate}/s"] = measure(shown, rate, seconds)
    return made


def retraining(sizes: Sizes, shop: Path, rate: int, seconds: float) -> Result:
    """Seconds until an event is readable: alone; from the start of a trainer until all lists are of
    the trainer's model; and until all are of the model before it, which is promoted again.
    """
    with running(sizes, shop) as shown:
        rooms, first = shown.rooms, shown.rooms.store.model()["version"]
        made: Result = {"alone": measure(shown, rate, seconds)}
        file = rooms.folder / "model.toml"
        file.write_text(written(replace(published(), vectors=VECTORS)))
        rooms.start("trainer", STREAMGCN_MODEL_FILE=str(file), STREAMGCN_EPOCHS=str(EPOCHS))
        made["training"] = measure(shown, rate, 0, lambda: _written(rooms, 2))
        promoted = rooms.run("models", "promote", first)
        assert promoted.returncode == 0, promoted.stderr
        made["snapshot_taken_up"] = measure(shown, rate, 0, lambda: _written(rooms, 3))
    return made


def _written(rooms: Rooms, models: int) -> bool:
    """Whether all lists were written from so many models, one after another."""
    told = re.findall(LISTS, rooms.log("serving"))
    return len([version for version, _ in groupby(told)]) >= models and told[-1] == told[-2]


@dataclass(frozen=True)
class Running:
    """What runs in this benchmark. partitions: of the topic; ready: seconds until all lists were
    there."""

    rooms: Rooms
    redis: Broker
    observer: Observer
    producer: KafkaProducer
    events: Events
    partitions: int
    ready: float

    def send(self, rate: int, seconds: float, over: Callable[[], bool] = lambda: True) -> float:
        """Send at an even pace so long, and until `over`; returns the events/s that were sent."""
        begun, sent, looked = time.monotonic(), 0, 0.0
        while True:
            lasted = time.monotonic() - begun
            if lasted >= max(seconds, looked + LOOK_SECONDS):
                looked = lasted
                if over():
                    break
            while sent < lasted * rate:
                user, item = self.events.next()
                value = msgspec.json.encode({"user_id": user, "item_id": item})
                now = int(time.time() * 1000)
                self.observer.sent(user, now)
                topic = self.rooms.settings.kafka_topic
                self.producer.send(topic, value, user.encode(), timestamp_ms=now)
                sent += 1
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        self.producer.flush()
        return sent / (time.monotonic() - begun)

    def warm_up(self, seconds: float = services.PATIENCE) -> None:
        """Send a few events and wait until these, and all before them, are answered."""
        self.send(WARM_UP_RATE, WARM_UP_SECONDS)
        services.wait_for("the warm-up's lists", lambda: not self.observer.left(), seconds)
        self.observer.take()


@contextmanager
def running(
    sizes: Sizes, shop: Path, serving: bool = True, partitions: int = PARTITIONS, **properties: str
) -> Iterator[Running]:
    """Everything started, all lists published and a few events answered; without `serving` the
    edges stored alone.

    Args:
        partitions: of the topic.
        properties: of the broker, as for `start_apache_kafka`.
    """
    if "KAFKA_HOME" not in os.environ:
        sys.exit("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    synthetic.prepare(sizes, shop)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(services.apache_kafka(folder, **properties))
        port = free_port()
        server = Broker(redis_command(port), port, folder / "redis.log")
        stack.callback(server.stop)
        url = f"redis://{server.address}/0"
        shutil.copytree(shop / "models", folder / "models")
        rooms = OwnProcesses(folder, broker.address, url)
        rooms.env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
        stack.enter_context(rooms)
        with closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
            topic = {rooms.settings.kafka_topic: {"num_partitions": partitions}}
            admin.create_topics(topic, wait_for_metadata=True)
        store_edges(rooms, shop)
        ready = start(rooms, url, sizes) if serving else 0.0
        seen = Observer(url, rooms.settings.redis_prefix)
        seen.start()
        stack.callback(seen.join)
        stack.callback(seen.stop.set)
        producer = KafkaProducer(bootstrap_servers=broker.address, acks="all", linger_ms=5)
        stack.callback(producer.close)
        shown = Running(rooms, server, seen, producer, Events(shop, sizes), partitions, ready)
        if serving:
            shown.warm_up()
        yield shown


def store_edges(rooms: Rooms, shop: Path) -> None:
    """The edges through Kafka and the consumer."""
    rooms.start("consumer")
    published = run(["publish", str(shop / "edges.parquet")], rooms.env, seconds=PATIENCE)
    assert published.returncode == 0, published.stderr
    edges = pq.read_metadata(shop / "edges.parquet").num_rows
    services.wait_for("the edges", lambda: rooms.rows() == edges, PATIENCE)


def start(rooms: Rooms, url: str, sizes: Sizes) -> float:
    """Serving; seconds until all lists are there."""
    begun = time.monotonic()
    rooms.start("serving")
    client = redis.Redis.from_url(url)
    services.wait_for(
        "the first publish",
        lambda: rooms.store.model() and client.dbsize() >= sizes.users + sizes.items,
        PATIENCE,
    )
    return round(time.monotonic() - begun, 1)


def measure(
    shown: Running,
    rate: int,
    seconds: float,
    over: Callable[[], bool] = lambda: True,
    serving: Sequence[str] = ("serving",),
) -> Result:
    """One rate: what the observer saw, what the first process of `serving` logged meanwhile, and
    what the processes used until the last event was answered or LEFT_SECONDS were over.
    """
    rooms, seen = shown.rooms, shown.observer
    logged, before, begun = len(rooms.log(serving[0])), used(rooms, serving), time.monotonic()
    sent_per_s = shown.send(rate, seconds, over)
    deadline = time.monotonic() + LEFT_SECONDS
    while seen.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    lasted, after = time.monotonic() - begun, used(rooms, serving)
    time.sleep(FIGURES_EVERY)  # for the log line of the last events
    waits = np.sort(seen.take())
    if not len(waits):
        sys.exit("no event was of one of the observed users: give a higher rate or more seconds")
    p50, p95, p99 = (waits[int(len(waits) * share)] for share in (0.5, 0.95, 0.99))
    return {
        "sent_per_s": round(sent_per_s),
        "sampled": len(waits),
        "never_seen": int(np.isinf(waits).sum()),
        "p50_s": finite(p50),
        "p95_s": finite(p95),
        "p99_s": finite(p99),
        "worst_s": finite(waits[-1]),
        "p99_over_limit": finite(p99 / LIMIT_SECONDS),
        "logged_ms": logged_figures(rooms.log(serving[0])[logged:]),
        "cores": {n: round((after[n] - before[n]) / lasted, 2) for n in before if n in after},
    }


def finite(seconds: float) -> float | None:
    """Rounded; None for what was never seen."""
    return round(float(seconds), 3) if np.isfinite(seconds) else None


def used(rooms: Rooms, serving: Sequence[str]) -> dict[str, float]:
    """CPU seconds of each process of the benchmark; `serving`: names in `rooms`."""
    found = {name: psutil.Process(rooms.pid(name)) for name in serving}
    found["observer and producer"] = psutil.Process()
    for child in psutil.Process().children():
        command = child.cmdline()
        started = command[-1] in ("consumer", "trainer", "serving")
        found.setdefault(command[-1] if started else Path(command[0]).name.split()[0], child)
    return {name: sum(process.cpu_times()[:2]) for name, process in found.items()}
