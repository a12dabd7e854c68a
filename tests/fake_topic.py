"""A topic in memory and members of a consumer group that read it, to drive a loop step by step."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping

from kafka import TopicPartition

from consumer.event.json import Event, encode
from consumer.kafka.assignment import Assignment
from consumer.kafka.client import Headers, Message
from consumer.kafka.offsets import begin_at
from consumer.kafka.reading import Polled

log = logging.getLogger("test")
TOPIC = "t"


class FakeTopic:
    """Partitions of messages. Offsets without a message are a transaction's marks."""

    def __init__(self, partitions: int = 2, begins: int = 0, has_id: bool = True) -> None:
        """An empty topic.

        Args:
            begins: offset of the first message of partition 0.
            has_id: brokers before Kafka 2.8 give topics no id.
        """
        self._n, self._has_id = partitions, has_id
        self.create_anew()
        self.first[0] = self.end[0] = begins

    def create_anew(self) -> None:
        """Another topic of the same name: empty, with another id."""
        self.id = str(uuid.uuid4()) if self._has_id else None
        self.first = [0] * self._n
        self.end = [0] * self._n
        self.messages: list[dict[int, Message]] = [{} for _ in range(self._n)]

    def publish(self, partition: int, *events: Event) -> None:
        for event in events:
            self.send(partition, encode(event), key=event.user_id.encode())

    def send(
        self, partition: int, value: bytes, headers: Headers = (), key: bytes | None = None
    ) -> None:
        at, now = self.end[partition], int(time.time() * 1000)
        self.messages[partition][at] = Message(TOPIC, partition, at, now, key, value, headers)
        self.end[partition] += 1

    def mark_transaction(self, partition: int) -> None:
        self.end[partition] += 1

    def delete_before(self, partition: int, offset: int) -> None:
        """What Kafka's retention does."""
        self.first[partition] = offset
        for each in [each for each in self.messages[partition] if each < offset]:
            del self.messages[partition][each]

    def lose_from(self, partition: int, offset: int) -> None:
        """What a broker does that was cut off before its messages were on the disk."""
        self.end[partition] = offset
        for each in [each for each in self.messages[partition] if each >= offset]:
            del self.messages[partition][each]


class FakeReader:
    """A member that a test gives partitions to and takes them from; a `Reader`.

    committed_offsets: what the loop has told by `commit`; started: what it has told by `start_at`;
    postponed: why it did not know a start.
    """

    def __init__(self, topic: FakeTopic, records: int = 3) -> None:
        """A member without partitions.

        Args:
            records: of a partition in one poll, at most.
        """
        self.topic_id: str | None = None
        self.trouble = ""
        self.committed_offsets: dict[int, int] = {}
        self.started: dict[int, int | None] = {}
        self.postponed: list[Exception] = []
        self.before_messages: Callable[[], None] = lambda: None  # a rebalance in a poll's midst
        self._topic, self._records = topic, records
        self._assignment = Assignment()
        self._position: dict[int, int] = {}

    def assign(self, *partitions: int) -> None:
        """A rebalance: the member has these partitions now."""
        self._assignment.lose(self._assignment.all())
        self._assignment.gain(partitions)

    def poll(self, seconds: float = 0.0) -> Polled:
        before, self.topic_id = self.topic_id, self._topic.id
        if before not in (None, self.topic_id):
            return Polled(lost=self._assignment.start_over())
        lost, gained = self._assignment.changes(ask=True)
        if lost or gained:
            return Polled(lost, gained)
        read = {}
        for partition in sorted(self._assignment.reading()):
            at, messages = self._position[partition], self._topic.messages[partition]
            if not self._topic.first[partition] <= at <= self._topic.end[partition]:
                return Polled(lost=self._assignment.start_over())
            if read_now := [messages[each] for each in sorted(messages) if each >= at]:
                read[partition] = read_now[: self._records]
                self._position[partition] = read[partition][-1].offset + 1
        self.before_messages()
        reading = self._assignment.reading()
        return Polled(messages=[each for partition, each in read.items() if partition in reading])

    def start_at(self, starts: Mapping[int, int | None]) -> None:
        for partition, start in starts.items():
            if self._assignment.claim(partition):
                first, end = self._topic.first[partition], self._topic.end[partition]
                tp = TopicPartition(TOPIC, partition)
                try:
                    self._position[partition] = begin_at(tp, start, first, end, log)
                    self.started[partition] = start
                except Exception:
                    self._assignment.unclaim(partition)
                    raise

    def postpone(self, error: Exception) -> None:
        self.postponed.append(error)

    def restart(self) -> None:
        self._assignment.start_over()

    def heartbeat(self) -> None:
        pass

    def is_same_log(self) -> bool:
        return self.topic_id == self._topic.id

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.committed_offsets |= offsets

    def committed(self, partition: int) -> int | None:
        return self.committed_offsets.get(partition)

    def first(self, partition: int) -> int:
        return self._topic.first[partition]

    def ends(self, offsets: Mapping[int, int]) -> dict[int, int]:
        return dict(enumerate(self._topic.end))

    def lag(self) -> int:
        return sum(self._topic.end[p] - at for p, at in self._position.items())

    def partitions(self) -> set[int]:
        return self._assignment.all()

    @property
    def has_lost(self) -> bool:
        return self._assignment.has_lost

    @property
    def n_partitions(self) -> int:
        return len(self._topic.end)

    def close(self) -> None:
        self._assignment.lose(self._assignment.all())
