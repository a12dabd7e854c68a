"""A log in memory, in the place of a subscription: it gives what the test says, poll by poll."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from consumer.event.json import Event, encode
from consumer.kafka.client import Headers, Message
from consumer.kafka.reading import Polled


class FakeLog:
    """One topic, of which all partitions can be lost and gained.

    committed_offsets: what the loop has committed; postponed: errors of places that it did not
    know; started: where it went on in each partition.
    """

    def __init__(self, n_partitions: int = 1, first: Mapping[int, int] | None = None) -> None:
        """`first`: partition -> offset of its first message, if that is not 0."""
        self.n_partitions = n_partitions
        self._first = dict.fromkeys(range(n_partitions), 0) | dict(first or {})
        self.topic_id: str | None = None
        self.trouble = ""
        self.committed_offsets: dict[int, int] = {}
        self.postponed: list[Exception] = []
        self.started: dict[int, int | None] = {}
        self._messages: dict[int, list[Message]] = {p: [] for p in range(n_partitions)}
        self._position: dict[int, int] = {}
        self._gained: set[int] = set()
        self._lost: set[int] = set()

    def publish(
        self, user: str, item: str, partition: int = 0, type: str = "view", headers: Headers = ()
    ) -> None:
        now = int(time.time() * 1000)
        value = encode(Event(user, item, 1.0, now, type))
        messages = self._messages[partition]
        offset = self._first[partition] + len(messages)
        messages.append(Message("t", partition, offset, now, user.encode(), value, headers))

    def give(self, *partitions: int) -> None:
        self._gained |= set(partitions)

    def take_away(self) -> None:
        self._lost |= self._position.keys()
        self._position.clear()
        self._gained.clear()

    def poll(self, seconds: float) -> Polled:
        lost, self._lost = self._lost, set()
        if lost or self._gained:
            return Polled(lost, sorted(self._gained))
        found: list[Sequence[Message]] = []
        for partition, position in self._position.items():
            if new := self._messages[partition][position - self._first[partition] :]:
                self._position[partition] += len(new)
                found.append(new)
        if not found:
            time.sleep(min(seconds, 0.005))
        return Polled(messages=found)

    def place(self, starts: Mapping[int, int | None]) -> None:
        for partition, start in starts.items():
            self._gained.discard(partition)
            self._position[partition] = self._first[partition] if start is None else start
            self.started[partition] = start

    def postpone(self, error: Exception) -> None:
        self.postponed.append(error)

    def committed(self, partition: int) -> int | None:
        return self.committed_offsets.get(partition)

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.committed_offsets |= offsets

    def heartbeat(self) -> None:
        """There is no group whose member it could stay."""

    def restart(self) -> None:
        partitions = set(self._position)
        self.take_away()
        self._gained |= partitions

    def partitions(self) -> set[int]:
        return self._position.keys() | self._gained

    def lag(self) -> int:
        return 0
