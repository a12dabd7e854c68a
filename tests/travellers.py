"""Users whose events come by other partitions once a topic has more of them, and what they read.

The events are sent by a client that the product does not use, librdkafka, as its own partitioner
places them: one producer hears of new partitions within a second, one only after minutes, as
Kafka's clients do by default. So for a while a user's events come by two partitions.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Self

import confluent_kafka as confluent
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from crc32c import crc32c

from serving.redis.store import Store
from tests.graphs import blocks

RATE = 200  # events a second
GRAPH = blocks()
ITEMS = GRAPH.item_ids.values.to_pylist()
USERS = [*GRAPH.user_ids.values.to_pylist(), *(f"{b}-new-{n}" for b in range(4) for n in range(15))]
LATE = [f"{b}-late-{n}" for b in range(4) for n in range(15)]  # who come with the new partitions


def create_topic(address: str, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, partitions)])[topic].result(30)


def add_partitions(address: str, topic: str, partitions: int) -> None:
    """As `kafka-topics.sh --alter --partitions` does."""
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)


class Travellers(threading.Thread):
    """Sends events of all users until it is ended.

    Every second user takes each item once at most. So the newest edge of such a user tells how new
    a list is, whichever of two events of different partitions comes first.

    sent: such a user -> times of the user's edges in the log, epoch milliseconds, oldest first;
    partitions: user -> where the user's events went; places: partition and offset of each event.
    """

    def __init__(self, address: str, topic: str, seed: int) -> None:
        super().__init__()
        self._topic = topic
        self._random = random.Random(seed)
        self._over = threading.Event()
        common = {"bootstrap.servers": address, "partitioner": "murmur2_random", "linger.ms": 5}
        quick = {"topic.metadata.refresh.interval.ms": 500}
        self._producers = [confluent.Producer(common | quick), confluent.Producer(common)]
        self._users: list[str] = []
        self._first: deque[str] = deque()  # who has sent nothing yet
        self._left: dict[str, list[str]] = {}  # items that a user of `sent` has not taken
        self.sent: dict[str, deque[int]] = {}
        self.partitions: dict[str, set[int]] = {}
        self.places: list[tuple[int, int]] = []

    @property
    def users(self) -> list[str]:
        return [*self._users, *self._first]

    def add(self, users: Sequence[str]) -> None:
        """These users send events from now on."""
        self._first.extend(users)

    def run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._over.is_set():
            if self._first:
                self._users.append(self._first.popleft())
                self._send(self._users[-1])
            else:
                self._send(self._random.choice(self._users))
            sent += 1
            time.sleep(max(0.0, began + sent / RATE - time.monotonic()))
        for producer in self._producers:
            assert producer.flush(30) == 0

    def end(self) -> None:
        """Returns when all that was sent is in the log."""
        self._over.set()
        self.join()

    def __enter__(self) -> Self:
        self.add(USERS)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def moved(self) -> set[str]:
        """Users with events in several partitions."""
        return {user for user, partitions in self.partitions.items() if len(partitions) > 1}

    def _send(self, user: str) -> None:
        """The user takes an item, or takes one back."""
        kind, now = "view", int(time.time() * 1000)
        if crc32c(user.encode()) % 2:
            left = self._left.setdefault(user, self._random.sample(ITEMS, len(ITEMS)))
            if not left:
                return
            item = left.pop()
        else:
            item = self._random.choice(ITEMS)
            kind = "remove" if self._random.random() < 0.2 else "view"
        told = {"user_id": user, "item_id": item, "timestamp": now, "type": kind}

        def placed(error: object, message: confluent.Message) -> None:
            assert error is None, error
            place = message.partition() or 0, message.offset() or 0
            self.places.append(place)
            self.partitions.setdefault(user, set()).add(place[0])
            if user in self._left:
                self.sent.setdefault(user, deque()).append(now)

        producer = self._random.choice(self._producers)
        producer.produce(self._topic, json.dumps(told), key=user, on_delivery=placed)
        for each in self._producers:
            each.poll(0)


class Readers(threading.Thread):
    """Reads every user's list again and again.

    stalest: the longest time in seconds for which a list was without an edge that was in the log.
    """

    def __init__(self, travellers: Travellers, store: Store) -> None:
        super().__init__()
        self._travellers, self._store = travellers, store
        self._over = threading.Event()
        self.stalest, self.of = 0.0, ""

    def run(self) -> None:
        while not self._over.wait(0.2):
            for user, sent in list(self._travellers.sent.items()):
                found = self._store.user(user)
                shown = found.event_at if found else 0
                missing = next((at for at in list(sent) if at > shown), None)
                if missing is not None and time.time() - missing / 1000 > self.stalest:
                    self.stalest, self.of = time.time() - missing / 1000, user

    def end(self) -> None:
        self._over.set()
        self.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
