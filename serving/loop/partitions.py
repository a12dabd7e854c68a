"""The partitions that this process reads, and where each goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress

from consumer.edge.store import Log, StoreError
from consumer.kafka.client import TopicShorter
from consumer.kafka.reading import Reader
from process.errors import StreamGCNError
from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.growing import Growing

COMMIT_EVERY = 1.0  # seconds between two times that Kafka is told what is answered


class Partitions:
    """Begins to read what was gained, and tells Kafka what is answered.

    mine: the partitions that are read here now; whoever asks later gets another set.
    """

    def __init__(
        self, topic: str, reader: Reader, growing: Growing, edges: UserEdges,
        due: DueUsers, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._topic, self._reader, self._growing = topic, reader, growing
        self._edges, self._due, self._log = edges, due, log
        self._edge_log: Log | None = None  # that is read
        self._topic_id: str | None = None  # the id that the topic had then
        self._committed_at = 0.0
        self.mine: frozenset[int] = frozenset()

    def start(self, gained: Collection[int]) -> bool:
        """Go on in gained partitions, where the edge store and Kafka say; returns whether that is
        known. If not, they will be told as gained again.
        """
        try:
            starts = {partition: self._find_start(partition) for partition in gained}
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

    def _find_start(self, partition: int) -> int | None:
        """The first event that no one has answered yet; None for the start of the partition.

        The edge store may hold it already: then it changes nothing, but its user is due.
        """
        edge_log = self._find_log()
        stored = self._growing.edge_store.next_offset(partition, edge_log)
        answered = self._reader.committed(partition)
        self._growing.read_now()
        # Of a log that is new nothing is stored, and none of its events is known from another log.
        self._edges.begin(edge_log.number, partition, stored or 0)
        start = stored if stored is None or answered is None else min(stored, answered)
        if start is not None:
            # Committed at once, so that another process that takes over does not go on behind it.
            self._due.have_read(partition, start)
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
