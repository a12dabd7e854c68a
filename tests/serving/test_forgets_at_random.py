"""Users are forgotten and come again while partitions move: steps in any order that can happen.

However the steps fell, a process holds in the end exactly the users whose newest row is of its
partitions, with the edges of a process that reads the whole store.

This file is longer than 250 lines because the rules of a random test are one class; those of the
topic and of its consumers are in tests/forgetting.py.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from consumer.edge.files import Files
from consumer.edge.order import ordered
from consumer.edge.store import EdgeStore, StoreError
from consumer.event.json import FORGET
from consumer.event.rules import HERE
from consumer.ingest.decode import events, rows
from serving.edges.growth import Growth
from serving.edges.user_edges import UserEdges
from tests.forgetting import ALL, PARTITIONS, USERS, Consuming, few, numbers, shares, user_ids
from trainer.graph.weights import Weighing

EXAMPLES = 30
STEPS = 25
MOVED = "m"  # has rows of several partitions, so that a gain may read the users of all rows
WEIGHING = Weighing(events="sum")

windows = st.integers(0, 4)  # that are read before other things happen
# Readings of files until one fails; None where none does, which is three times of four.
failures = st.none() | st.none() | st.none() | st.integers(0, 8)
first_rows = st.lists(st.tuples(st.sampled_from([*USERS, MOVED]), numbers), max_size=6)


class Sequence(Consuming):
    """One topic, its consumers, and one serving process.

    mine: the partitions that the process reads; wanted: those that it has, and will read. gone:
    users who must not be held before they come again.
    """

    left: int | None = None  # readings of files until one fails

    def __init__(self) -> None:
        super().__init__()
        self.store = EdgeStore(self.folder.name, "t")
        self.edges = UserEdges(WEIGHING, held=frozenset())
        self.mine: frozenset[int] = frozenset()
        self.wanted: frozenset[int] = frozenset()
        self.logs_left = 0
        self.position: dict[int, int] = {}  # the next offset of each partition that is read
        self.holding: Generator[None] | None = None
        self.growth: tuple[Growth, Iterator[None]] | None = None
        self.gone: set[str] = set()

    @initialize(rows=first_rows, mine=shares, logs=st.sampled_from([1, 1, 1, 2]))
    def begin(self, rows: list[tuple[str, int]], mine: frozenset[int], logs: int) -> None:
        self.logs_left = logs - 1
        for user, partition in rows:
            self.come(user, partition, is_stored=True)
        self.assign(mine, 0, None)

    def came(self, rows: pa.Table) -> None:
        for user, kind in zip(rows["user_id"].to_pylist(), rows["type"].to_pylist(), strict=True):
            if kind != FORGET:
                self.gone.discard(user)

    @precondition(lambda self: self.logs_left)
    @rule()
    def make_topic_anew(self) -> None:
        self.logs_left -= 1
        self.end_holding()
        super().make_topic_anew()
        self.gone = set()
        self.lose()

    @rule(user=user_ids, partition=numbers, is_read=st.booleans())
    def stop_between_commits_of_a_forget(self, user: str, partition: int, is_read: bool) -> None:
        """Steps that seldom follow each other by chance."""
        self.take(frozenset({partition}), ALL)
        self.forget(user, partition)
        if is_read:
            self.read(frozenset({partition}), ALL)
        self.stop_between_commits(partition, 1)

    # Partitions come and go, as in serving/loop/partitions.py.

    def lose(self) -> None:
        self.mine = frozenset()
        self.edges.read_here(self.mine)

    def start(self) -> Generator[None]:
        gained, log = self.wanted - self.mine, self.store.newest()
        places = {p: self.store.next_offset(p, log) or 0 for p in gained}
        every = len(self.wanted) == PARTITIONS
        yield from self.edges.hold(self.store, None if every else self.wanted, set())
        for partition, offset in places.items():
            self.edges.begin(log.number, partition, offset)
            self.position[partition] = offset
        self.mine |= gained
        self.edges.read_here(self.mine)

    @rule(wanted=shares, n=windows, after=failures)
    def assign(self, wanted: frozenset[int], n: int, after: int | None) -> None:
        self.end_holding()
        if self.mine - wanted:
            self.lose()  # what stays is read from the stored offsets on, as what is gained
        self.wanted = wanted
        self.begin_holding(n, after)

    @precondition(lambda self: self.wanted - self.mine)
    @rule(n=windows, after=failures)
    def begin_holding(self, n: int, after: int | None) -> None:
        """Also once more, after a StoreError."""
        self.end_holding()
        if self.wanted - self.mine:
            self.holding = self.start()
            if not go_on(self.holding, after, n):
                self.holding = None

    @precondition(lambda self: self.holding)
    @rule(after=failures)
    def go_on_holding(self, after: int | None) -> None:
        self.end_holding(after)

    def end_holding(self, after: int | None = None) -> None:
        """Before anything else, as all of it is done by one thread."""
        holding, self.holding = self.holding, None
        if holding:
            go_on(holding, after)

    # The process reads the topic.

    @rule(partitions=shares, n=few)
    def read(self, partitions: frozenset[int], n: int) -> None:
        self.end_holding()
        for partition in sorted(partitions & self.mine):
            begin = self.position[partition]
            messages = self.topic[partition][begin : begin + n]
            self.position[partition] += len(messages)
            known = self.edges.watermark.offsets(self.log.number).get(partition, 0)
            for event, _, at in events(rows(messages)[0]) if messages else ():
                user, had = event.user_id, self.edges.has(event.user_id)
                self.edges.apply(event, partition, at)
                if event.type != FORGET:
                    self.gone.discard(user)
                elif event.item_id != HERE and at.offset >= known and had:
                    self.gone |= set() if self.is_to_be_read(user) else {user}

    def is_to_be_read(self, user: str) -> bool:
        """Whether the store has rows of the user that the process has not read."""
        stamps = self.rows.rows_of(user)["ingested_at"].cast(pa.int64()).to_pylist()
        return any(stamp > (self.edges.watermark.stamp or 0) for stamp in stamps)

    # The process reads the store on a thread, as in serving/loop/growing.py.

    @precondition(lambda self: not self.growth)
    @rule(n=windows, after=failures)
    def begin_growth(self, n: int, after: int | None) -> None:
        self.end_holding()
        if self.edges.has_news(self.store):
            growth = self.edges.begin_growth()
            self.growth = growth, growth.steps(EdgeStore(self.folder.name, "t"))
            if not go_on(self.growth[1], after, n):
                self.growth = None

    @precondition(lambda self: self.growth)
    @rule(after=failures)
    def finish_growth(self, after: int | None) -> None:
        self.end_holding()
        assert self.growth
        (growth, steps), self.growth = self.growth, None
        if go_on(steps, after):
            growth.stored.prepare()
            self.edges.finish_growth(growth)

    @rule()
    def grow(self) -> None:
        if not self.growth:
            self.begin_growth(0, None)
        if self.growth:
            self.finish_growth(None)

    # What must be true.

    def check_invariants(self, *given: Any, **named: Any) -> None:
        super().check_invariants(*given, **named)
        for user in () if self.holding else self.gone:
            assert not self.edges.has(user), f"{user}, who was forgotten, has come back"

    @rule()
    def settle(self) -> None:
        """All is stored and read."""
        self.store_all()
        while self.wanted - self.mine:
            self.begin_holding(0, None)
            self.end_holding()
        self.read(self.mine, ALL)
        for _ in range(3):
            self.grow()
        whole = UserEdges(WEIGHING)
        whole.grow(EdgeStore(self.folder.name, "t"))
        for user in (*USERS, MOVED):
            partitions = ordered(self.rows.rows_of(user))["kafka_partition"].to_pylist()
            is_mine = bool(partitions) and partitions[-1] in self.mine
            assert self.edges.has(user) == is_mine, f"{user}: {partitions}"
            if is_mine:
                assert [*self.edges.weights(user).items()] == [*whole.weights(user).items()]
                assert self.edges.partition(user) == partitions[-1]
                assert not self.edges.is_missing(user)
            elif partitions:
                assert not self.edges.unknown([user]), f"{user}: {partitions}"

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            super().teardown()


@contextmanager
def failing(after: int | None) -> Iterator[None]:
    Sequence.left = after
    try:
        yield
    finally:
        Sequence.left = None


def go_on(steps: Iterator[None], after: int | None, n: int = ALL) -> bool:
    """Do n steps; returns False if the store fails, after so many readings of files."""
    try:
        with failing(after):
            for _ in range(n):
                next(steps, None)
    except StoreError:
        return False
    return True


def test_users_are_held_as_the_store_has_them_however_they_were_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.edge.windows.WINDOW_ROWS", 2)
    monkeypatch.setattr("serving.edges.strangers.FEWEST", 1)
    monkeypatch.setattr("serving.edges.stored_edges.FEW_BLANKS", 0)
    monkeypatch.setattr("serving.edges.user_edges.give_back", lambda: None)  # which takes long
    read = Files.read

    def failing_read(*given: Any) -> pa.Table:
        if Sequence.left is not None:
            Sequence.left -= 1
            if Sequence.left < 0:
                raise StoreError("the place is away")
        return read(*given)

    monkeypatch.setattr(Files, "read", failing_read)
    run_state_machine_as_test(
        Sequence,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
