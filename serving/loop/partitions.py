"""The partitions that this process reads, and where each goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from consumer.edge.store import Log, StoreError
from consumer.kafka.client import TopicShorter
from consumer.kafka.reading import Reader
from process.errors import StreamGCNError
from process.health import Health
from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.growing import Growing
from serving.loop.heartbeats import heartbeats

COMMIT_EVERY = 1.0  # seconds between two times that Kafka is told what is answered


class _Place(NamedTuple):
    log: int
    stored: int | None  # offset that the edge store goes on at
    answered: int | None  # offset that serving has committed to Kafka, or the first of all


class Partitions:
    """Begins to read what was gained, and tells Kafka what is answered.

    mine: the partitions that are read here now; whoever asks later gets another set.
    """

    def __init__(
        self, topic: str, reader: Reader, growing: Growing, edges: UserEdges,
        due: DueUsers, health: Health, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._topic, self._reader, self._growing = topic, reader, growing
        self._edges, self._due, self._health, self._log = edges, due, health, log
        self._edge_log: Log | None = None  # that is read
        self._topic_id: str | None = None  # the id that the topic had then
        self._committed_at = 0.0
        self.mine: frozenset[int] = frozenset()

    def start(self, gained: Collection[int]) -> bool:
        """Go on in gained partitions, where the edge store and Kafka say; returns whether that is
        known. If not, they will be told as gained again.
        """
        try:
            places = {partition: self._find_place(partition) for partition in gained}
            self._hold()
            starts = {partition: self._begin(partition, places[partition]) for partition in gained}
        except StreamGCNError as error:
            self._reader.postpone(error)
            return False
        self.mine = self.mine.union(starts)
        self._edges.read_here(self.mine)
        with suppress(TopicShorter):  # until the consumer has begun another log
            self._reader.start_at(starts)
        return True

    @property
    def are_shared(self) -> bool:
        """Whether other processes read some of the topic's partitions, or will."""
        return len(self.mine) < self._reader.n_partitions

    def waiting(self) -> set[int]:
        """The partitions that this process has and does not read yet."""
        return self._reader.partitions() - self.mine

    def lose(self) -> None:
        """Nothing is read here until something is started again."""
        self.mine = frozenset()
        self._edges.read_here(self.mine)

    def restart(self) -> None:
        """Ask again where each partition goes on: the edge store is another one."""
        self._edge_log = None
        self.lose()
        self._reader.restart()

    def commit(self) -> None:
        """Tell Kafka up to where the events are answered: where another process would go on."""
        if time.monotonic() - self._committed_at < COMMIT_EVERY:
            return
        answered = self._due.offsets()
        if answered:
            self._committed_at = time.monotonic()
            self._reader.commit(answered)
            self._due.committed(answered)

    def _find_place(self, partition: int) -> _Place:
        """What is known of a partition before the edge store is read."""
        edge_log = self._find_log()
        stored = self._growing.edge_store.next_offset(partition, edge_log)
        answered = self._reader.committed(partition)
        if stored is None and answered is None:
            # Else a process that takes over might go on at what is stored and unanswered by then.
            answered = self._reader.first(partition)
        return _Place(edge_log.number, stored, answered)

    def _hold(self) -> None:
        """Hold the users of the partitions that this process has, and no others.

        While that is read this process stays a member of the group.
        """
        has, edges, before = self._reader.partitions(), self._edges, self._edges.held
        if not has:
            return  # they are another process's by now: the next poll tells
        every = 0 < self._reader.n_partitions <= len(has)
        with self._health.busy("reading the edge store"), heartbeats(self._reader):
            for _ in self._growing.hold(None if every else frozenset(has)):
                pass
        if edges.held != before:
            self._log.info(
                "Holding %d edges (pairs of user and item) of %d users: those of %s.",
                len(edges.graph), edges.n_users,
                "all partitions" if every else f"partitions {sorted(has)}",
            )  # fmt: skip

    def _begin(self, partition: int, place: _Place) -> int | None:
        """The first event that no one has answered yet; None for the start of the partition.

        The edge store may hold it already: then it changes nothing, but its user is due.
        """
        log, stored, answered = place
        # Of a log that is new nothing is stored, and none of its events is known from another log.
        self._edges.begin(log, partition, stored or 0)
        start = stored if stored is None or answered is None else min(stored, answered)
        known = answered if start is None else start
        if known is not None:
            # Committed at once, so that another process that takes over does not go on behind it.
            self._due.have_read(partition, known)
        return start

    def _find_log(self) -> Log:
        """The topic's log in the edge store, as the consumer has numbered it."""
        store = self._growing.edge_store
        topic_id = self._reader.topic_id
        found = store.log(topic_id)
        if found is None:
            if not store.before_logs():
                raise StoreError(f"the consumer has not begun with this log of topic {self._topic}")
            found = store.newest()
        if self._edge_log and found != self._edge_log:
            if topic_id is not None and topic_id == self._topic_id:
                self._log.warning(
                    "Serving reads topic %s again from its start, as the consumer does: Kafka has "
                    "lost messages of it.", self._topic,
                )  # fmt: skip
            else:
                self._log.warning(
                    "Topic %s was created anew; serving reads it from its start.", self._topic
                )
        self._edge_log, self._topic_id = found, topic_id
        return found
