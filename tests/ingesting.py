"""A consumer on a thread of the test's own, on a topic of its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from consumer.edge.store import EdgeStore
from consumer.event.json import Event, encode
from consumer.ingest.loop import Ingest
from consumer.kafka.client import Headers
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import read_topic, wait_for_topics
from consumer.settings import ConsumerSettings
from tests import services
from tests.graphs import stored
from tests.services import wait_for
from tests.threads import running


class Topic:
    """A new topic and its edge store."""

    def __init__(self, kafka: str, folder: Path) -> None:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.settings = ConsumerSettings(
            kafka_bootstrap_servers=kafka,
            kafka_topic=name,
            kafka_group=name,
            edge_store=str(folder / "edges"),
            commit_seconds=0.2,
        )
        wait_for_topics(self.settings, threading.Event(), services.log)
        self.publisher = Publisher(self.settings)

    def send(
        self, value: bytes | None, headers: Headers = (), key: bytes = b"k", partition: int = 0
    ) -> None:
        self.publisher.send(self.settings.kafka_topic, value, key, headers, partition)

    def publish(self, *events: Event, partition: int = 0, headers: Headers = ()) -> None:
        for event in events:
            self.send(encode(event), headers, event.user_id.encode(), partition)
        self.publisher.flush()

    def length(self) -> int:
        """Messages in the topic."""
        return sum(1 for _ in read_topic(self.settings, self.settings.kafka_topic))

    def into(self, folder: Path | str) -> ConsumerSettings:
        """The settings of another consumer group that fills another store."""
        changed = {"edge_store": str(folder), "kafka_group": uuid.uuid4().hex}
        return self.settings.model_copy(update=changed)

    def rows(self) -> pa.Table:
        return stored(EdgeStore(self.settings.edge_store, self.settings.kafka_topic))

    def ends(self) -> dict[int, int]:
        """Of each partition with messages, the offset behind the last one that is published."""
        self.publisher.flush()
        messages = read_topic(self.settings, self.settings.kafka_topic)
        return {message.partition: message.offset + 1 for message in messages}

    def wait_stored(self, settings: ConsumerSettings | None = None) -> EdgeStore:
        """Wait until all that is published so far is stored."""
        settings, ends = settings or self.settings, self.ends()
        store = EdgeStore.begin(settings.edge_store, settings.kafka_topic)
        wait_for(
            "that all is stored",
            lambda: all((store.next_offset(p) or 0) >= end for p, end in ends.items()),
        )
        return store


def consuming(settings: ConsumerSettings) -> AbstractContextManager[object]:
    """Run a consumer while inside."""
    return running(lambda stop: Ingest.join(settings, stop).run())


def likes(user: str, items: Sequence[str], kind: str = "view") -> list[Event]:
    return [Event(user, item, 1.0, 1_700_000_000_000, kind) for item in items]
