"""A topic whose events an edge store takes one after another, and processes that share it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA, TABLE
from consumer.edge.store import EdgeStore
from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position
from serving.edges.steps import Held
from serving.edges.user_edges import UserEdges
from tests.graphs import table
from trainer.graph.weights import Weighing

PARTITIONS = 4


def hold(edges: UserEdges, rows: EdgeStore, held: Held) -> set[str]:
    digests: set[str] = set()
    for _ in edges.hold(rows, held, digests):
        pass
    return digests


class Topic:
    """Events of users that are stored one after another, and processes that read them.

    moves: the share of events that come by a partition that is not the user's usual one.
    """

    def __init__(self, folder: Path, seed: int, moves: float) -> None:
        self.random = np.random.default_rng(seed)
        self.moves = moves
        self.rows = EdgeStore.begin(str(folder), "t")
        self.events: list[tuple[int, int, Event]] = []  # partition, offset, in the one order
        self.stored = 0  # of the events
        self.ends = [0] * PARTITIONS
        self.weighing = Weighing(events="sum")

    def publish(self, n: int) -> None:
        for _ in range(n):
            number = int(self.random.integers(60))
            partition = number % PARTITIONS
            if self.random.random() < self.moves:
                partition = int(self.random.integers(PARTITIONS))
            kind = "remove" if self.random.random() < 0.1 else "view"
            self.put(f"u{number}", f"i{self.random.integers(20)}", partition, kind)

    def put(self, user: str, item: str, partition: int, kind: str = "view") -> None:
        """Publish one event."""
        event = Event(user, item, 1.0, len(self.events), kind)
        self.events.append((partition, self.ends[partition], event))
        self.ends[partition] += 1

    def store(self, n: int) -> None:
        """The consumer commits the next events, in their order; each `forget` by itself."""
        events = self.events[self.stored : self.stored + n]
        for is_forget, some in groupby(events, lambda each: each[2].type == FORGET):
            if is_forget:
                for partition, offset, event in some:
                    self.erase(event.user_id, partition, event.item_id, offset)
            else:
                self._append([*some])
        self.stored += len(events)

    def _append(self, events: Sequence[tuple[int, int, Event]]) -> None:
        made = table([(e.user_id, e.item_id, 1.0, e.timestamp, e.type) for *_, e in events])
        for name, column in (
            ("kafka_partition", [partition for partition, *_ in events]),
            ("kafka_offset", [offset for _, offset, _ in events]),
        ):
            made = made.append_column(name, pa.array(column, TABLE.field(name).type))
        made = taken(made.select(SCHEMA.names).cast(SCHEMA), 0)
        polls = pa.array(range(1, len(events) + 1)).cast(TABLE.field("ingested_at").type)
        at = TABLE.get_field_index("ingested_at")
        made = made.set_column(at, TABLE.field("ingested_at"), polls)
        first = {partition: offset for partition, offset, _ in reversed(events)}
        after = {partition: offset + 1 for partition, offset, _ in events}
        self.rows.append(made, first, after, self.rows.newest())

    def erase(self, user: str, partition: int, item: str = "", offset: int | None = None) -> None:
        """The consumer takes up a `forget` of the user.

        Args:
            item: rules.HERE where the rows of that partition alone are meant.
            offset: of the event; None for one that nobody else here reads.
        """
        row = table([(user, item, 1.0, 0, FORGET)])
        at = self.ends[partition] if offset is None else offset
        for name, number in (("kafka_partition", partition), ("kafka_offset", at)):
            row = row.append_column(name, pa.array([number], TABLE.field(name).type))
        made = taken(row.select(SCHEMA.names).cast(SCHEMA), 0)
        first = None if at == 0 else at
        self.rows.erase(made, {partition: first}, self.rows.newest())
        if offset is not None:
            after = {partition: offset + 1}
            self.rows.append(TABLE.empty_table(), {partition: first}, after, self.rows.newest())

    def whole(self) -> UserEdges:
        """What a process has that reads all partitions."""
        made = UserEdges(self.weighing)
        made.grow(self.rows)
        return made

    def owner(self, user: str) -> int:
        """The partition of the user's newest event."""
        return next(p for p, _, event in reversed(self.events) if event.user_id == user)

    def users(self) -> set[str]:
        return {event.user_id for _, _, event in self.events}


class Process:
    """What a serving process does with its edges."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.edges = UserEdges(topic.weighing, held=frozenset())
        self.mine: set[int] = set()
        self._read = 0

    def assign(self, *mine: int) -> None:
        self.mine = set(mine)
        stored = [0] * PARTITIONS
        for partition, offset, _ in self.topic.events[: self.topic.stored]:
            stored[partition] = offset + 1
        hold(self.edges, self.topic.rows, None if len(mine) == PARTITIONS else frozenset(mine))
        for partition in mine:
            self.edges.begin(0, partition, stored[partition])
        self._read = 0  # as it goes on where nobody has answered

    def read(self) -> None:
        for partition, offset, event in self.topic.events[self._read :]:
            if partition in self.mine:
                self.edges.apply(event, partition, Position(offset, 0))
        self._read = len(self.topic.events)

    def grow(self) -> None:
        growth = self.edges.begin_growth()
        growth.run(self.topic.rows)
        assert self.edges.finish_growth(growth) is not None

    def check(self, whole: UserEdges) -> None:
        for user in self.topic.users():
            mine = self.topic.owner(user) in self.mine
            assert self.edges.has(user) == mine, user
            if mine:
                assert self.edges.items(user) == whole.items(user), user
                assert list(self.edges.items(user)) == list(whole.items(user))
