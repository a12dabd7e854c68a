"""The command `forget`: a user out of every store, and the proof of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from consumer.edge.store import EdgeStore
from consumer.event.json import FORGET, Event, encode
from consumer.kafka.publisher import Publisher
from consumer.settings import ConsumerSettings
from serving.redis.store import Store
from serving.settings import ServingSettings
from trainer.lifecycle.snapshots import Snapshots

LOOK_EVERY = 0.5  # seconds


class Place(NamedTuple):
    """Where a user's traces were looked for, and what was found."""

    name: str
    trace: str  # empty if there is none


def publish(settings: ConsumerSettings, user: str) -> dict[int, int]:
    """Publish a `forget` of the user to every partition; returns partition -> its offset.

    Each of them ends what is before it in its own partition, so it does not matter by which
    partitioner, or of how many partitions, the user's events came to be where they are.

    Raises:
        StreamError: the broker does not answer.
    """
    publisher = Publisher(settings)
    value = encode(Event(user, "", 1.0, int(time.time() * 1000), FORGET))
    topic = settings.kafka_topic
    sent = [
        publisher.send(topic, value, user.encode(), partition=partition)
        for partition in publisher.partitions(topic)
    ]
    publisher.flush()
    publisher.close()
    return dict(place() for place in sent)


def verify(
    settings: ServingSettings, user: str, places: Mapping[int, int], seconds: float
) -> list[Place]:
    """Look until there is no trace of the user left, at most so long; what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = list(look(settings, user, places))
        if time.monotonic() > deadline or not any(place.trace for place in seen):
            return seen
        time.sleep(LOOK_EVERY)


def look(settings: ServingSettings, user: str, places: Mapping[int, int]) -> Iterator[Place]:
    """Every place that the user could be in: what is from before `places`, partition -> offset.

    Raises:
        StoreError, SnapshotError, RedisDown: a place cannot be read.
    """
    store = EdgeStore(settings.edge_store, settings.kafka_topic)
    behind = [p for p, offset in places.items() if (store.next_offset(p) or 0) <= offset]
    yield Place(
        f"{settings.kafka_topic}: what the consumer has stored",
        f"not yet up to the erasure in partitions {behind}" if behind else "",
    )
    rows = store.of_user(user, places)
    yield Place(f"{settings.edge_store}: rows", f"{rows} rows" if rows else "")
    files = store.files_with(user, places)
    yield Place(f"{settings.edge_store}: all files, replaced ones too", ", ".join(files))
    held = Snapshots(settings.model_store).holding(user)
    yield Place(f"{settings.model_store}: all snapshots", ", ".join(held))
    lists = Store(settings.redis_url, settings.redis_prefix)
    yield Place("Redis: the list", "a list" if lists.has_user(user) else "")
