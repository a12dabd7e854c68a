"""Consumers that are killed, paused and restarted at random while many clients publish events.

The clients differ in codec, partitioner, headers and times, and some abort their transactions. At
the end the edge store must hold exactly what was committed, each once. Run by `make chaos` in its
long form, by tests/path/test_chaos.py in a short one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from consumer.edge.store import EdgeStore
from consumer.kafka.client import StreamError
from consumer.kafka.topics import group_offsets, wait_for_topics
from consumer.settings import ConsumerSettings
from tests import services
from tests.graphs import stored
from tests.producers import BEGAN_MS, Crowd, log_of
from tests.services import Broker

CONSUMERS = 3
RATE = 8_000  # events a second, at most
QUIET = 0.5  # seconds between two blows, at most
PAUSE = 12.0  # seconds, at most; a member is thrown out of the group after 6
PATIENCE = 180.0  # seconds to store the rest when the blows are over
MAIN = """
from consumer import settings
from consumer.ingest import loop as ingest
from consumer.ingest.metrics import METRICS
from process.running import running
with running("consumer", METRICS, "text", "127.0.0.1", 0) as process:
    ingest.run(settings.ConsumerSettings.load(), process)
"""


class Chaos:
    """The consumers, and the log of what happened to them."""

    def __init__(
        self, broker: Broker, topic: str, folder: Path, seed: int, gentle: bool = False
    ) -> None:
        """`gentle`: a blow falls only when every consumer has its partitions.

        Where a member dies while it joins, the embedded broker's group can hang for good.
        """
        self.random = random.Random(seed)
        self._gentle = gentle
        self._begun = [0] * CONSUMERS  # size of each consumer's log when it was started last
        self.broker = broker
        self.settings = ConsumerSettings(
            kafka_bootstrap_servers=broker.address,
            kafka_topic=topic,
            kafka_group=topic,
            edge_store=str(folder / "edges"),
        )
        self.folder = folder
        self._store = EdgeStore.begin(self.settings.edge_store, topic)
        self.kills = self.pauses = self.stops = self.restarts = 0
        self._consumers = [self._consumer(n) for n in range(CONSUMERS)]

    def blow(self) -> None:
        """One of: SIGKILL and start again, pause past the session's end, stop and start again."""
        at = self.random.randrange(CONSUMERS)
        child = self._consumers[at]
        kind = self.random.random()
        if kind < 0.7:
            child.kill()
            self.kills += 1
        elif kind < 0.85:
            child.send_signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0, PAUSE))
            child.send_signal(signal.SIGCONT)
            self.pauses += 1
            return
        else:
            child.terminate()
            self.stops += 1
        child.wait()
        time.sleep(self.random.uniform(0, QUIET))
        self._consumers[at] = self._consumer(at)

    def wait(self) -> None:
        """Mostly until the consumers are at work again, else a moment."""
        if self._gentle:
            services.wait_for("all consumers to have partitions", self._all_assigned)
            return
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, QUIET))
            return
        before = self._store.version
        deadline = time.monotonic() + 3 * QUIET
        while self._store.version == before and time.monotonic() < deadline:
            time.sleep(self.random.uniform(0, 0.1))
            self._store.newest()

    def _all_assigned(self) -> bool:
        logs = [self._log(number).read_bytes()[at:] for number, at in enumerate(self._begun)]
        return all(log.rfind(b"Reading partitions") > log.rfind(b"Stopped reading") for log in logs)

    def _log(self, number: int) -> Path:
        return self.folder / f"consumer-{number}.log"

    def alive(self) -> None:
        """Start again who ended by itself, as a supervisor would."""
        for at, child in enumerate(self._consumers):
            if child.poll() is not None:
                self._consumers[at] = self._consumer(at)

    def stop(self) -> None:
        """End all as an operator does, and wait for it."""
        for child in self._consumers:
            child.terminate()
        for number, child in enumerate(self._consumers):
            code, said = child.wait(PATIENCE), self._log(number).read_bytes()[self._begun[number] :]
            # One that was started a moment ago has said nothing and knows no signal yet.
            ended = code == 0 or (code == -signal.SIGTERM and not said)
            assert ended, f"consumer {number} ended with {code}: {said[-2_000:].decode()}"

    def end(self) -> None:
        """Kill all."""
        for child in self._consumers:
            child.kill()
            child.wait()

    def _consumer(self, number: int) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            "KAFKA_TOPIC": self.settings.kafka_topic,
            "KAFKA_GROUP": self.settings.kafka_group,
            "EDGE_STORE": self.settings.edge_store,
            "STREAMGCN_COMMIT_EVENTS": str(self.random.choice([500, 2_000, 10_000])),
            "STREAMGCN_COMMIT_SECONDS": "0.3",
        }
        with self._log(number).open("ab") as log:
            self._begun[number] = log.tell()
            # Without the command line's imports it is there sooner, to be killed again.
            return subprocess.Popen([sys.executable, "-c", MAIN], env=env, stderr=log)


def run(
    broker: Broker,
    folder: Path,
    events: int,
    kills: int,
    broker_kills: int,
    seed: int = 1,
    gentle: bool = False,
) -> dict[str, object]:
    """Publish `events` while consumers are killed at least `kills` times; compare; the figures."""
    topic = f"chaos-{os.getpid()}-{seed}-{time.time_ns()}"
    chaos = Chaos(broker, topic, folder, seed, gentle)
    wait_for_topics(chaos.settings, threading.Event(), services.log)
    started = time.monotonic()
    crowd = Crowd(broker.address, topic, seed, transactions=not gentle)
    publisher = threading.Thread(target=_publish, args=(crowd, events, lambda: chaos.kills / kills))
    publisher.start()
    watch = _Watch(chaos.settings)
    watch.start()
    try:
        while chaos.kills < kills or publisher.is_alive():
            chaos.wait()
            chaos.blow()
            chaos.alive()
            share = min(1.0, chaos.kills / kills)
            if chaos.restarts + 0.5 < broker_kills * share:
                broker.kill_and_restart()
                chaos.restarts += 1
        publisher.join()
        published = log_of(broker.address, topic)
        store = EdgeStore(chaos.settings.edge_store, topic)
        deadline = time.monotonic() + PATIENCE
        while store.count() < len(published) and time.monotonic() < deadline:
            chaos.alive()
            time.sleep(0.2)
        chaos.stop()  # each stores what it has, so that anything too much is there
    finally:
        chaos.end()
        watch.stop()
    rows = stored(store)
    check(rows, published, crowd)
    assert not watch.wrong, watch.wrong
    return {
        "events": len(published), "aborted": len(crowd.aborted), "sent_again": crowd.again,
        "ways": len(crowd.used), "kills": chaos.kills, "pauses": chaos.pauses, "stops": chaos.stops,
        "broker_kills": chaos.restarts, "versions": store.version, "looks": watch.looks,
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def check(rows: pa.Table, published: dict[tuple[int, int], str], crowd: Crowd) -> None:
    """The rows are exactly what is committed, by place and content; nothing is lost of it."""
    items = set(published.values())
    lost = crowd.committed.keys() - items
    assert not lost, (
        f"{len(lost)} are not in the log, of { ({crowd.committed[each] for each in lost}) }"
    )
    assert not crowd.aborted & items, f"{len(crowd.aborted & items)} were aborted"
    places = list(
        zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)
    )
    assert len(places) == len(set(places)), f"{len(places) - len(set(places))} rows are double"
    missing = published.keys() - set(places)
    assert not missing, f"{len(missing)} are missing, as {sorted(missing)[:5]}"
    assert len(places) == len(published), f"{len(places) - len(published)} rows are too many"
    assert rows["item_id"].to_pylist() == [published[place] for place in places]
    numbers = np.array([int(item[1:]) for item in rows["item_id"].to_pylist()])
    assert rows["user_id"].to_pylist() == [f"u{number % 997}" for number in numbers]
    assert (rows["interaction"].to_numpy() == numbers / 7).all()
    milliseconds = rows["timestamp"].cast(pa.int64()).to_numpy() // 1000
    assert (milliseconds == BEGAN_MS + numbers).all()


class _Watch(threading.Thread):
    """Looks that Kafka's committed offsets never lead the store's."""

    def __init__(self, settings: ConsumerSettings) -> None:
        super().__init__()
        self._settings = settings
        self._over = threading.Event()
        self.looks = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        store = EdgeStore(self._settings.edge_store, self._settings.kafka_topic)
        while not self._over.wait(2.0):
            try:
                committed = group_offsets(self._settings, self._settings.kafka_group)
            except StreamError:
                continue  # the broker is being killed
            stored = {partition: store.next_offset(partition) or 0 for partition in committed}
            self.looks += 1
            self.wrong += [
                f"partition {p}: committed {offset}, stored {stored[p]}"
                for p, offset in committed.items()
                if offset > stored[p]
            ]

    def stop(self) -> None:
        self._over.set()
        self.join()


def _publish(crowd: Crowd, events: int, done: Callable[[], float]) -> None:
    """Publish at the pace of the blows, so that each falls into the stream."""
    started = time.monotonic()

    def wait(sent: int) -> None:
        time.sleep(max(0.0, started + sent / RATE - time.monotonic()))
        while sent / events > done() + 0.1:
            time.sleep(0.05)

    crowd.publish(events, wait)


def main() -> None:
    """The long form: against the Apache Kafka of KAFKA_HOME, else the embedded broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker-kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000)
    given = parser.parse_args()
    real = "KAFKA_HOME" in os.environ
    kafka = services.apache_kafka if real else services.embedded_kafka
    with tempfile.TemporaryDirectory() as folder, kafka(Path(folder)) as broker:
        kills = given.broker_kills if real else 0
        result = run(
            broker, Path(folder), given.events, given.kills, kills, given.seed, gentle=not real
        )
    print({"broker": "Apache Kafka" if real else "embedded", "seed": given.seed, **result})


if __name__ == "__main__":
    main()
