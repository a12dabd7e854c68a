"""All processes under load for a while: a trainer retrains, and each process is killed at random.

Consumer, trainer, serving, Kafka and Redis are killed and started again while events come. At the
end the edge store has each event once, each user has a right list, no process has grown, lists were
fresh while nothing was killed, and no file is left over. Run by `make soak MINUTES=30` in the long
form, by tests/path/test_soak.py for a minute. It needs an Apache Kafka, named by KAFKA_HOME: the
embedded broker loses all messages when it is killed.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import confluent_kafka as confluent
import numpy as np
import psutil

from consumer.event.json import Event, encode
from consumer.kafka.topics import wait_for_topics
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_command
from tests import services
from tests.rooms import Rooms
from tests.services import Broker, wait_for
from tests.soak_checks import (
    FRESH,
    GROUPS,
    OF_GROUP,
    ROOMS,
    check_edges,
    check_files,
    check_fresh,
    check_lists,
    check_memory,
    list_of,
)

USERS = 300
RATE = 200.0  # events a second
BETWEEN = 5.0  # seconds from one blow to the next, at least; at most twice as many
STEADY = 15.0  # seconds after a blow in which lists may be late
CALM = 10.0  # seconds without blows after these, at the end
PAUSE = 10  # and after so many blows
SETTINGS = {
    "STREAMGCN_MIN_EDGES": "500",
    "STREAMGCN_RETRAIN_SECONDS": "20",
    "STREAMGCN_EPOCHS": "5",
    "STREAMGCN_COMMIT_SECONDS": "0.3",
    "STREAMGCN_TOP_K": "20",
}


class Load(threading.Thread):
    """Publishes events of known users; `published` counts them."""

    def __init__(self, kafka: str, topic: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._kafka, self._topic, self._random = kafka, topic, random.Random(seed)
        self._over = threading.Event()
        self.published = 0

    def run(self) -> None:
        producer, began = client(self._kafka), time.monotonic()
        while not self._over.wait(max(0.0, began + self.published / RATE - time.monotonic())):
            user = self._random.randrange(USERS)
            item = user % GROUPS * OF_GROUP + self._random.randrange(OF_GROUP)
            send(producer, self._topic, f"u{user}", f"i{item}")
            self.published += 1
        producer.flush()

    def stop(self) -> None:
        self._over.set()
        self.join()


class Freshness(threading.Thread):
    """Publishes events of newcomers, one at a time, and waits for the list of each.

    delays: when each event was sent, and seconds until the list was there.
    """

    def __init__(self, rooms: Rooms, kafka: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._rooms, self._kafka, self._random = rooms, kafka, random.Random(seed)
        self._over = threading.Event()
        self.delays: list[tuple[float, float]] = []

    def run(self) -> None:
        producer = client(self._kafka)
        while not self._over.wait(0.1):
            user, began = f"newcomer{len(self.delays)}", time.monotonic()
            item = self._random.randrange(GROUPS * OF_GROUP)
            send(producer, self._rooms.settings.kafka_topic, user, f"i{item}")
            producer.flush()
            while not self._over.is_set() and not list_of(self._rooms, user):
                time.sleep(0.005)
            self.delays.append((began, time.monotonic() - began))

    def stop(self) -> None:
        self._over.set()
        self.join()


class Memory(threading.Thread):
    """Looks at the memory of each process, once a second; bytes by process and half of the time."""

    def __init__(self, rooms: Rooms, half: float) -> None:
        super().__init__(daemon=True)
        self._rooms, self._half = rooms, half
        self._over = threading.Event()
        self.most: dict[tuple[str, bool], int] = {}

    def run(self) -> None:
        while not self._over.wait(1.0):
            late = time.monotonic() > self._half
            for room in ROOMS:
                try:
                    size = psutil.Process(self._rooms.pid(room)).memory_info().rss
                except (psutil.Error, KeyError):
                    continue  # it was killed just now
                self.most[room, late] = max(size, self.most.get((room, late), 0))

    def stop(self) -> None:
        self._over.set()
        self.join()


def client(kafka: str) -> confluent.Producer:
    """A producer that sends again for as long as it takes."""
    return confluent.Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "log_level": 0,  # that Kafka is away is wanted here
        }
    )


def send(producer: confluent.Producer, topic: str, user: str, item: str) -> None:
    event = Event(user, item, 1.0, int(time.time() * 1000), "view")
    producer.produce(topic, encode(event), user.encode(), on_delivery=_delivered)
    producer.poll(0)


def _delivered(error: confluent.KafkaError | None, _: confluent.Message) -> None:
    if error:
        raise confluent.KafkaException(error)


def blows(rooms: Rooms, kafka: Broker, redis: Broker) -> dict[str, Callable[[], object]]:
    """What is killed, and started again."""

    def again(room: str) -> Callable[[], object]:
        def act() -> None:
            rooms.kill(room)
            rooms.start(room)

        return act

    return {room: again(room) for room in ROOMS} | {
        "Kafka": kafka.kill_and_restart,
        "Redis": redis.kill_and_restart,
    }


def run(kafka: Broker, redis: Broker, folder: Path, minutes: float, seed: int) -> dict[str, object]:
    """Soak, then check all; returns figures."""
    rooms = Rooms(folder, kafka.address, f"redis://{redis.address}/0", **SETTINGS)
    topic, chance = rooms.settings.kafka_topic, random.Random(seed)
    wait_for_topics(rooms.settings, threading.Event(), services.log)
    end = time.monotonic() + minutes * 60
    load = Load(kafka.address, topic, seed)
    fresh = Freshness(rooms, kafka.address, seed)
    memory = Memory(rooms, end - minutes * 30)
    kills: Counter[str] = Counter()
    hit: list[tuple[float, float]] = []  # when each blow began, and when it was over
    with rooms:
        rooms.start(*ROOMS)
        load.start()
        wait_for("the first lists", lambda: list_of(rooms, "u1"))
        fresh.start()
        memory.start()
        kinds = blows(rooms, kafka, redis)
        while time.monotonic() < end:
            name, began = chance.choice(list(kinds)), time.monotonic()
            services.log.info("%s is killed.", name)
            kinds[name]()
            kills[name] += 1
            hit.append((began, time.monotonic()))
            pause = not kills.total() % PAUSE
            time.sleep(STEADY + CALM if pause else chance.uniform(BETWEEN, 2 * BETWEEN))
        time.sleep(max(0.0, hit[-1][1] + STEADY - time.monotonic()))
        calm_until = time.monotonic() + CALM
        wait_for("the end", lambda: fresh.delays and fresh.delays[-1][0] > calm_until)
        load.stop()
        fresh.stop()
        check_edges(rooms, kafka.address)
        check_lists(rooms)
        memory.stop()
        codes = {room: rooms.stop(room) for room in ROOMS}
    assert codes == dict.fromkeys(ROOMS, 0), codes
    check_memory(memory.most)
    assert "Traceback" not in "".join(rooms.log(room) for room in ROOMS)
    calm = [
        delay
        for at, delay in fresh.delays
        if all(not began - FRESH <= at <= over + STEADY for began, over in hit)
    ]
    check_fresh(calm)
    check_files(rooms)
    worst = max(delay for _, delay in fresh.delays)
    return {
        "minutes": minutes, "events": load.published + len(fresh.delays), "kills": dict(kills),
        "models": rooms.log("trainer").count("is live"), "newcomers": len(fresh.delays),
        "newcomers_without_blows": len(calm), "p50_s": round(float(np.median(calm)), 3),
        "p99_s": round(float(np.percentile(calm, 99)), 3), "worst_s": round(worst, 1),
        "MB": {f"{room}, {'second' if late else 'first'} half": round(size / 1e6)
               for (room, late), size in sorted(memory.most.items())},
    }  # fmt: skip


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if "KAFKA_HOME" not in os.environ:
        parser.error("KAFKA_HOME does not name an Apache Kafka 4 distribution")
    folder, port = Path(tempfile.mkdtemp("-soak")), free_port()
    print(f"Logs and data are in {folder}; they stay there if something is wrong.")
    home = folder / "rooms"
    home.mkdir()
    with services.apache_kafka(folder) as kafka:
        redis = Broker(redis_command(port), port, folder / "redis.log")
        try:
            result = run(kafka, redis, home, given.minutes, given.seed)
        finally:
            redis.stop()
    shutil.rmtree(folder)
    print({"seed": given.seed, **result})


if __name__ == "__main__":
    main()
