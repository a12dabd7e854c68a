"""The command `forget`: a user out of every store, and the proof of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from consumer.edge.store import EdgeStore, StoreError
from consumer.event.json import FORGET, Event, encode
from consumer.event.rules import ONLY_HERE
from consumer.ingest.letters import Letters, mark_forgotten
from consumer.ingest.reinject import transactional_id
from consumer.kafka.identity import topic_id
from consumer.kafka.publisher import Publisher
from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.settings import SettingsError
from serving.redis.store import Store
from serving.settings import ServingSettings
from trainer.lifecycle.parts import IDS
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import State

LOOK_EVERY = 0.5  # seconds, at least, and so many times as long as the last look took:
REST_TIMES = 4.0  # a look reads the ids of all files


class Finding(NamedTuple):
    """Where a user's traces were looked for, and what was found."""

    name: str
    trace: str = ""  # empty if there is none
    unknown: str = ""  # why it is not known whether there is one
    remark: str = ""


def publish(settings: ConsumerSettings, user: str) -> dict[int, int]:
    """Publish a `forget` of the user to every partition; returns partition -> its offset.

    Each of them ends what is before it in its own partition, so it does not matter by which
    partitioner, or of how many partitions, the user's events came to be where they are. A mark in
    the dead-letter topic keeps back the user's letters. Whoever is putting letters back is ended.

    Raises:
        StreamError: the broker does not answer.
    """
    publisher = Publisher(settings, transactional_id=transactional_id(settings))
    value = encode(Event(user, "", 1.0, int(time.time() * 1000), FORGET))
    topic = settings.kafka_topic
    try:
        with publisher.transaction():
            sent = [
                publisher.send(topic, value, user.encode(), [ONLY_HERE], partition)
                for partition in publisher.partitions(topic)
            ]
            publisher.flush()
            places = dict(message.place for message in sent)
            mark, headers = mark_forgotten(user, places)
            for partition in publisher.partitions(settings.dead_letter_topic):
                publisher.send(settings.dead_letter_topic, mark, None, headers, partition)
    finally:
        publisher.close()
    return places


def refuse_another_topic(settings: ConsumerSettings) -> None:
    """Look that the edge store, if it can be reached, is the topic's.

    Raises:
        SettingsError: it belongs to another topic, where nothing would be erased.
    """
    with suppress(StoreError):
        EdgeStore(settings.edge_store, settings.kafka_topic)


class Search:
    """Every place that a user could be in: what is from before `places`, partition -> offset."""

    def __init__(self, settings: ServingSettings, user: str, places: Mapping[int, int]) -> None:
        self._settings, self._user, self._places = settings, user, places
        self._snapshots = Snapshots(settings.model_store)
        self._redis = Store(settings.redis_url, settings.redis_prefix)
        # Snapshot -> the files of its users' ids, and their states.
        self._looked_at: dict[str, dict[str, State]] = {}
        self._held: list[str] = []  # snapshots with the user, as of then

    def verify(self, seconds: float) -> list[Finding]:
        """Look until there is no trace of the user left, at most so long; what was seen last."""
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            seen = list(self._look(last=began > deadline))
            done = not any(place.trace or place.unknown for place in seen)
            if done or began > deadline:
                return [*seen, self._letters()]
            time.sleep(max(LOOK_EVERY, REST_TIMES * (time.monotonic() - began)))

    def _look(self, last: bool) -> Iterator[Finding]:
        """Before the consumer has stored the erasure, only the `last` look is at all places."""
        edges = self._settings.edge_store
        stored = _finding(
            f"{self._settings.kafka_topic}: what the consumer has stored", self._behind
        )
        yield stored
        if stored.unknown and not last:
            return
        yield _finding(f"{edges}: rows", self._rows)
        yield _finding(f"{edges}: all files, replaced ones too", self._files)
        yield _finding(f"{self._settings.model_store}: all snapshots", self.models)
        yield _finding("Redis: the list", self._list)

    def _behind(self) -> Finding:
        store = self._store()
        log = store.log(self._topic_id)
        stored = store.offsets(list(self._places), log) if log else {}
        behind = [p for p, offset in self._places.items() if stored.get(p, 0) <= offset]
        what = f"it is not yet up to the erasure in partitions {behind}; is the consumer running?"
        return Finding("", unknown=what if behind else "")

    def _rows(self) -> Finding:
        store = self._store()
        rows = store.of_user(self._user, self._places, store.log(self._topic_id))
        return Finding("", f"{rows} rows" if rows else "")

    def _files(self) -> Finding:
        store = self._store()
        found = store.files_with(self._user, self._places, store.log(self._topic_id))
        return Finding("", ", ".join(found))

    def models(self) -> Finding:
        """Which snapshots hold the user; they are read again only when one was written."""
        self._snapshots.check()
        written = {
            version: self._files_of_users(version) for version in self._snapshots.every_version()
        }
        if written != self._looked_at:
            self._held = self._snapshots.holding(self._user)
            self._looked_at = written
        return Finding("", ", ".join(self._held))

    def _files_of_users(self, version: str) -> dict[str, State]:
        found = self._snapshots.storage.states(version).items()
        return {name: state for name, state in found if IDS.fullmatch(name)}

    def _list(self) -> Finding:
        return Finding("", "a list" if self._redis.has_user(self._user) else "")

    def _letters(self) -> Finding:
        def look() -> Finding:
            held = Letters(self._settings).holding(self._user)
            kept = f"{held} messages, which are not put back; Kafka keeps them until they expire"
            return Finding("", remark=kept if held else "")

        return _finding(f"{self._settings.dead_letter_topic}: rejected messages", look)

    @cached_property
    def _topic_id(self) -> str | None:
        return topic_id(self._settings)

    def _store(self) -> EdgeStore:
        return EdgeStore(self._settings.edge_store, self._settings.kafka_topic)


def _finding(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()._replace(name=name)
    except SettingsError:
        raise
    except (StreamGCNError, OSError) as error:
        return Finding(name, unknown=str(error))
