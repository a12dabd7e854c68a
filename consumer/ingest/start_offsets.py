"""Where the consumer goes on in each partition: after what the edge store holds of the topic.

A topic that was created anew, or has lost its end, is another log of the same name. The edge store
numbers the logs, and the events of each come after those of the logs before it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from consumer.edge.store import EdgeStore, Log, StoreError
from consumer.kafka.client import TopicShorter
from consumer.kafka.reading import Reader


class StartOffsets:
    """The log that is read, and how far each partition is stored or about to be."""

    def __init__(self, store: EdgeStore, topic: str, log: logging.Logger) -> None:
        """Nothing is read yet."""
        self._store = store
        self._topic = topic
        self._log = log
        self._known: Log | None = None  # that was read last
        self._known_id: str | None = None  # the id that the topic had then
        self._position: dict[int, int] = {}  # partition -> offset at which the next batch begins
        self.reading: Log | None = None  # that is read now

    def find(self, gained: Collection[int], reader: Reader) -> dict[int, int | None]:
        """Partition -> offset to begin at, None for the earliest.

        Raises:
            StoreError: the edge store cannot be read, or another log not begun in it.
            StreamError: the broker does not answer.
        """
        self.reading = self.reading or self._find_log(reader)
        stored = self._store.offsets(list(gained), self.reading)
        for partition in gained:
            self._position.pop(partition, None)
        self._position |= stored
        return {partition: stored.get(partition) for partition in gained}

    def position(self, partition: int) -> int | None:
        """Offset at which the next batch begins, None where nothing of the partition is stored."""
        return self._position.get(partition)

    def move_on(self, after: Mapping[int, int]) -> None:
        """Note that a batch up to these offsets is being written."""
        self._position |= after

    def drop(self) -> None:
        """Forget everything that was found; the edge store is asked again."""
        self.reading = None
        self._position.clear()

    def begin_another(self, error: TopicShorter, reader: Reader) -> bool:
        """Begin another log, as what is behind the topic's end was lost; whether that worked."""
        try:
            self._known = self._store.begin_log(reader.topic_id, self.reading or self._known)
        except StoreError as failed:
            self._log.warning(
                "%s; the topic is to be read again from its start, but the edge store cannot "
                "record that yet: %s.", error, failed,
            )  # fmt: skip
            return False
        self._log.warning(
            "%s. Kafka has lost messages at an unknown place. The topic is read again from its "
            "start, and its events come after the stored ones.", error,
        )  # fmt: skip
        return True

    def what_became_of_the_store(self, is_written: bool) -> str:
        """What happened to the edge store under this consumer; empty if nothing did.

        Args:
            is_written: whether a batch is being written now, so the store may be behind.

        Raises:
            StoreError: it cannot be read.
        """
        if not self.reading:
            return ""
        if self._store.id != self.reading.table:
            return "replaced by another one"
        if is_written:
            return ""
        stored = self._store.offsets(list(self._position), self.reading)
        lacks = any(stored.get(p, 0) < offset for p, offset in self._position.items())
        return "put back to an older state" if lacks else ""

    def _find_log(self, reader: Reader) -> Log:
        """The log that the topic's name stands for now; the store learns of it if it is another."""
        before, topic_id = self._known, reader.topic_id
        same_topic = topic_id is not None and topic_id == self._known_id
        found = self._store.log(topic_id)
        begun = found is None
        if found is None:
            stored = self._store.before_logs()
            ends = reader.ends(stored) if stored else {}
            another = any(offset > ends.get(p, 0) for p, offset in stored.items())
            found = self._store.begin_log(topic_id, known=None, another=another)
        another = bool(before and before != found and before.table == found.table)
        if another and same_topic:
            self._log.warning(
                "Topic %s is read again from its start, with %d in the column log of the edge "
                "store: another consumer has found that Kafka has lost messages of it.",
                self._topic, found.number,
            )  # fmt: skip
        elif another or (begun and found.number):
            self._log.warning(
                "Topic %s was created anew. The stored events of the topic before stay, and the "
                "events of this one come after them, with %d in the column log of the edge store.",
                self._topic, found.number,
            )  # fmt: skip
        self._known, self._known_id = found, topic_id
        return found
