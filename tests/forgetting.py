"""A topic in which users come and are forgotten, and its consumers, as rules of a random test."""

from __future__ import annotations

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from consumer.edge.store import EdgeStore, Log, Offsets
from consumer.event.json import FORGET, Event, encode
from consumer.event.rules import ONLY_HERE
from consumer.ingest.batch import Batch
from consumer.kafka.client import Message

USERS = ["u", "v"]
PARTITIONS = 3
ALL = 1_000  # events, more than there are

user_ids = st.sampled_from(USERS)
numbers = st.integers(0, PARTITIONS - 1)
shares = st.frozensets(numbers, min_size=1)
few = st.integers(1, 3)


class Commit(NamedTuple):
    """The second commit of a consumer that has erased: as `EdgeStore.append`."""

    rows: pa.Table
    first: dict[int, int | None]
    after: dict[int, int]
    log: Log


class Consumers(EdgeStore):
    """The edge store for consumers, which can stop before the second commit."""

    waiting: Commit | None = None  # a commit that was not done, as `stops`
    stops = False

    def append(
        self, rows: pa.Table, first: Mapping[int, int | None], after: Offsets, log: Log
    ) -> None:
        if self.stops:
            self.waiting = Commit(rows, dict(first), dict(after), log)
        else:
            super().append(rows, first, after, log)


class Consuming(RuleBasedStateMachine):
    """A topic and its consumers, each partition at its own speed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        EdgeStore.begin(self.folder.name, "t")
        self.rows = Consumers(self.folder.name, "t")
        self.log = self.rows.begin_log("first", None)
        self.topic: list[list[Message]] = [[] for _ in range(PARTITIONS)]
        self.polls, self.time = 0, 1_700_000_000_000  # epoch milliseconds
        self.waiting: list[Commit] = []

    def teardown(self) -> None:
        self.folder.cleanup()

    def came(self, rows: pa.Table) -> None:
        """These rows are stored."""

    # What clients do.

    def send(self, user: str, item: str, kind: str, partition: int, only_here: bool) -> None:
        self.time += 1
        value = encode(Event(user, item, 1.0, self.time, kind))
        messages = self.topic[partition]
        headers = [ONLY_HERE] if only_here else []
        messages.append(Message("t", partition, len(messages), self.time, b"k", value, headers))

    @rule(user=user_ids, partition=numbers, is_stored=st.booleans())
    def come(self, user: str, partition: int, is_stored: bool) -> None:
        self.send(user, f"i{self.time}", "view", partition, only_here=False)
        if is_stored:
            self.take(frozenset({partition}), ALL)

    @rule(user=user_ids, partition=numbers)
    def forget(self, user: str, partition: int) -> None:
        self.send(user, "", FORGET, partition, only_here=False)

    @rule(user=user_ids)
    def forget_by_command(self, user: str) -> None:
        for partition in range(PARTITIONS):
            self.send(user, "", FORGET, partition, only_here=True)

    def make_topic_anew(self) -> None:
        """What was published before is stored: a `forget` that only serving has read is lost."""
        self.store_all()
        self.log = self.rows.begin_log("second", None)
        self.topic = [[] for _ in range(PARTITIONS)]

    # What consumers do.

    def next_batch(self, partitions: frozenset[int], n: int) -> Batch:
        made = Batch()
        for partition in sorted(partitions - self.stopped()):
            begin = self.rows.next_offset(partition, self.log) or 0
            messages = self.topic[partition][begin : begin + n]
            self.polls += 1
            if messages:
                assert not made.take(messages, begin or None, self.polls)
        return made

    def stopped(self) -> set[int]:
        """Partitions whose consumers have stopped between their commits."""
        return {partition for commit in self.waiting for partition in commit.after}

    @rule(partitions=shares, n=few)
    def take(self, partitions: frozenset[int], n: int) -> None:
        """A consumer stores the next events of its partitions."""
        made = self.next_batch(partitions, n)
        if made.after:
            made.write(self.rows, self.log)
            for rows in made._tables:
                self.came(rows)

    @rule(partition=numbers, n=few)
    def stop_between_commits(self, partition: int, n: int) -> None:
        """A consumer takes the next events, and comes no further than to erase."""
        made = self.next_batch(frozenset({partition}), n)
        if any(pc.any(pc.equal(rows["type"], FORGET)).as_py() for rows in made._tables):
            self.rows.stops = True
            made.write(self.rows, self.log)
            self.rows.stops = False
            assert self.rows.waiting
            self.waiting.append(self.rows.waiting)

    @precondition(lambda self: self.waiting)
    @rule()
    def kill_between_commits(self) -> None:
        """Another consumer will take the events once more, and erase once more."""
        self.waiting.pop(0)

    @precondition(lambda self: self.waiting)
    @rule()
    def go_on_with_second_commit(self) -> None:
        commit = self.waiting.pop(0)
        self.rows.append(*commit)
        self.came(commit.rows)

    def store_all(self) -> None:
        while self.waiting:
            self.go_on_with_second_commit()
        for partition in range(PARTITIONS):
            self.take(frozenset({partition}), ALL)
