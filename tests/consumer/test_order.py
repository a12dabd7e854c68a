"""One order of all rows: the log's number, the ingest time, partition, offset, row."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.edge import windows
from consumer.edge.files import Files
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA, TABLE
from consumer.edge.store import EdgeStore, Watermark
from consumer.event.json import FORGET, Event
from consumer.ingest.batch import Batch
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from tests.graphs import stored
from trainer.graph.growth import grow
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing

FIRST_EDITION = Path(__file__).parent.parent / "data" / "first_edition" / "edges"
Places = list[tuple[int, int]]  # partition and offset of each row


def rows(events: list[tuple[str, str, str]], places: Places) -> pa.Table:
    """Rows of SCHEMA of (user, item, type)."""
    users, items, kinds = zip(*events, strict=True)
    partitions, offsets = zip(*places, strict=True)
    n = len(events)
    return pa.table(
        [
            users, items, [1.0] * n, kinds, pa.array([0] * n, pa.timestamp("us", tz="UTC")),
            pa.array(partitions, pa.int32()), pa.array(offsets, pa.int64()),
        ],
        schema=SCHEMA,
    )  # fmt: skip


def put(store: EdgeStore, events: list[tuple[str, str, str]], places: Places, at: int) -> None:
    """One commit of one poll."""
    after = {partition: offset + 1 for partition, offset in places}
    first: dict[int, int | None] = dict(reversed(places))
    store.append(taken(rows(events, places), at), first, after, store.newest())


def edges_of(store: EdgeStore) -> set[tuple[str, str]]:
    """What a trainer that starts now has for edges."""
    graph = InteractionGraph()
    for _ in grow(graph, store, Watermark()):
        pass
    users, items = graph.user_ids.values.to_pylist(), graph.item_ids.values.to_pylist()
    return {(users[u], items[i]) for u, i in zip(graph.users, graph.items, strict=True)}


def test_what_a_client_of_another_partitioner_removes_is_gone_after_a_restart_too(
    tmp_path: Path,
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    put(store, [("u", "i", "view"), ("u", "j", "view")], [(3, 0), (3, 1)], at=1_000)
    put(store, [("u", "i", "remove")], [(0, 0)], at=2_000)  # to the partition of another hash
    assert edges_of(store) == {("u", "j")}
    fresh = UserEdges(Weighing())
    fresh.grow(store)
    assert set(fresh.items("u")) == {"j"}


def test_events_of_two_polls_that_are_stored_at_once_keep_their_order(tmp_path: Path) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    first = taken(rows([("u", "i", "view")], [(3, 0)]), 1_000)
    second = taken(rows([("u", "i", "remove")], [(0, 0)]), 1_001)
    store.append(pa.concat_tables([first, second]), {}, {0: 1, 3: 1}, store.newest())
    assert edges_of(store) == set()


def test_a_partition_that_moves_to_a_consumer_whose_clock_is_behind_keeps_its_order(
    tmp_path: Path,
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    put(store, [("u", "i", "view")], [(3, 0)], at=9_000_000)
    put(store, [("u", "i", "remove")], [(3, 1)], at=1_000)
    put(store, [("u", "i", "view"), ("u", "k", "view")], [(3, 2), (3, 3)], at=1_001)
    found = stored(store)
    stamps = found["ingested_at"].cast(pa.int64()).to_pylist()
    assert found["kafka_offset"].to_pylist() == [0, 1, 2, 3]
    assert stamps == [9_000_000, 9_000_001, 9_000_002, 9_000_002]
    assert edges_of(store) == {("u", "i"), ("u", "k")}


def test_two_rows_of_one_pair_in_one_message_keep_their_order_when_the_store_is_tidied(
    tmp_path: Path,
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    message = [("u", f"i{n % 7}", "remove" if n % 2 else "view") for n in range(21)]
    for offset in range(10):
        put(store, message, [(0, offset)] * len(message), at=offset)
    last = {item: kind for _, item, kind in message}
    wanted = {("u", item) for item, kind in last.items() if kind == "view"}
    assert edges_of(store) == wanted
    store.tidy()
    found = stored(store)
    assert found["kafka_row"].to_pylist() == list(range(21)) * 10
    assert edges_of(store) == wanted


event = st.tuples(
    st.sampled_from("uvw"),
    st.sampled_from("ijkl"),
    st.sampled_from(["view", "view", "view", "remove", "remove", "forget"]),
)
Poll = dict[int, list[tuple[str, str, str]]]  # by partition
Story = list[tuple[Poll, bool, list[int]]]
poll = st.dictionaries(st.integers(0, 3), st.lists(event, min_size=1, max_size=4), max_size=3)
# The partition's number, and whether the reader looks after the poll.
polls = st.lists(st.tuples(poll, st.booleans(), st.permutations(range(4))), max_size=12)


@pytest.mark.parametrize("examples", [10, pytest.param(50, marks=pytest.mark.long)])
def test_live_and_read_again_the_edges_are_the_same_whatever_came_by_which_partition(
    tmp_path_factory: pytest.TempPathFactory, examples: int
) -> None:
    @settings(deadline=None, max_examples=examples)
    @given(polls)
    def check(story: Story) -> None:
        _compare(EdgeStore.begin(str(tmp_path_factory.mktemp("edges")), "t"), story)

    check()


def _compare(store: EdgeStore, story: Story) -> None:
    """The edges in serving and in a trainer, after these polls, with those of the store."""
    live, trained = UserEdges(Weighing()), InteractionGraph()
    seen = Watermark()
    offsets = dict.fromkeys(range(4), 0)
    for partition in offsets:
        live.begin(0, partition, 0)
    for at, (messages, looks, order) in enumerate(story):
        for partition in sorted(messages, key=order.index):  # as they come to serving's own poll
            for number, (user, item, kind) in enumerate(messages[partition]):
                made = Event(user, "" if kind == FORGET else item, 1.0, 0, kind)
                live.apply(made, partition, Position(offsets[partition] + number, 0))
        tables = []
        first: dict[int, int | None] = {**offsets}
        for partition, events in messages.items():
            places = [(partition, offsets[partition] + n) for n in range(len(events))]
            tables.append(taken(rows(events, places), at))
            offsets[partition] += len(events)
        if tables:
            Batch(first, {**offsets}, _tables=tables).write(store, store.newest())
        if looks:
            live.grow(store)
            for step in grow(trained, store, seen):
                seen = step.watermark
    live.grow(store)
    for step in grow(trained, store, seen):
        seen = step.watermark
    assert not live.unsettled
    fresh = edges_of(store)
    assert {(user, item) for user in "uvw" for item in live.items(user)} == fresh
    users, items = trained.user_ids.values.to_pylist(), trained.item_ids.values.to_pylist()
    assert {
        (users[u], items[i]) for u, i in zip(trained.users, trained.items, strict=True)
    } == fresh


def test_a_user_with_events_in_several_partitions_is_settled_by_the_store(tmp_path: Path) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    put(store, [("u", "i", "view")], [(3, 0)], at=1)
    live = UserEdges(Weighing())
    live.grow(store)
    live.apply(Event("u", "j", 1.0, 0, "remove"), 0, Position(0, 0))  # serving polls this first,
    live.apply(Event("u", "j", 1.0, 0, "view"), 3, Position(1, 0))  # the consumer this
    assert live.unsettled == {"u"}
    put(store, [("u", "j", "view")], [(3, 1)], at=2)
    live.grow(store)
    assert live.unsettled == {"u"}  # the store does not hold both
    put(store, [("u", "j", "remove")], [(0, 0)], at=3)
    live.grow(store)
    assert (live.unsettled, live.take_settled()) == (set(), {"u"})
    assert set(live.items("u")) == {"i"}


def test_a_store_of_the_first_edition_is_read_and_written_on(tmp_path: Path) -> None:
    shutil.copytree(FIRST_EDITION, tmp_path / "edges")
    store = EdgeStore(str(tmp_path / "edges"), "interactions")
    assert store.offsets([0, 1, 2]) == {0: 365, 1: 363}
    before = stored(store)
    assert len(before) == 727
    assert before.schema == TABLE
    places = list(
        zip(before["kafka_partition"].to_pylist(), before["kafka_offset"].to_pylist(), strict=True)
    )
    assert places == sorted(places)
    reader, graph = Watermark(), InteractionGraph()
    for step in grow(graph, store, reader):
        reader = step.watermark
    edges = len(graph)
    assert edges == 509  # as the first version's snapshot of it says

    log = store.begin_log("an id of today's topic", None)
    assert log.number == 0
    late = taken(rows([("late", "item-7", "remove"), ("new", "item-1", "view")], [(1, 363)] * 2), 5)
    store.append(late, {1: 363}, {1: 364}, log)
    for step in grow(graph, store, reader):
        reader = step.watermark
    assert len(graph) == edges
    assert len(edges_of(store)) == edges
    assert stored(store)["kafka_row"].to_pylist()[-2:] == [0, 1]
    store.tidy()
    assert len(stored(store)) == 729


def test_old_and_new_rows_in_one_file_are_read_in_small_windows_in_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FIRST_EDITION, tmp_path / "edges")
    store = EdgeStore(str(tmp_path / "edges"), "interactions")
    log = store.begin_log("an id", None)
    for n in range(40):
        put_ = taken(rows([(f"u{n}", "i", "view")] * 5, [(0, 365 + n)] * 5), n * 1_000_000)
        store.append(put_, {0: 365 + n}, {0: 366 + n}, log)
    whole = stored(store)
    for tidied in (False, True):
        if tidied:
            store.tidy()
        monkeypatch.setattr(windows, "WINDOW_ROWS", 50)
        parts = list(store.news(Watermark()).read())
        assert len(parts) > 10
        assert max(map(len, parts)) < 200
        assert pa.concat_tables(parts).equals(whole)
        monkeypatch.undo()


def test_a_window_of_a_merged_file_has_at_most_a_quarter_more_rows_than_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    for n in range(10):
        put_ = taken(rows([("u", "i", "view")] * 25, [(0, n)] * 25), n * 1_000_000)
        store.append(put_, {0: n or None}, {0: n + 1}, store.newest())
    store.tidy()
    monkeypatch.setattr(windows, "WINDOW_ROWS", 100)
    parts = list(store.news(Watermark()).read())
    assert sum(map(len, parts)) == 250
    assert max(map(len, parts)) <= 125


Read = Callable[[int], list[int]]


def read_of_merged(n: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """A merged file with 64 rows in each of n partitions, read in windows of 16 rows.

    Returns:
        What reads partition 2 and says how many of its rows each window had, given how many
        partitions are said to be read.
    """
    store = EdgeStore.begin(str(folder), "t")
    for at in range(64):
        events = [(f"u{p}", f"i{at}", "view") for p in range(n)]
        put_ = taken(rows(events, [(p, at) for p in range(n)]), at * 1_000_000)
        starts: dict[int, int | None] = dict.fromkeys(range(n), at or None)
        store.append(put_, starts, dict.fromkeys(range(n), at + 1), store.newest())
    store.tidy()
    end = store.news(Watermark()).end(Watermark())
    monkeypatch.setattr(windows, "WINDOW_ROWS", 16)
    had: list[int] = []
    read = Files.read

    def counted(*given: Any) -> pa.Table:
        found = read(*given)
        had.append(len(found))
        return found

    monkeypatch.setattr(Files, "read", counted)

    def read_two(of: int) -> list[int]:
        had.clear()
        found = [*store.news(end).shared_before(pc.field("kafka_partition") == 2, of)]
        assert pa.concat_tables(found)["item_id"].to_pylist() == [f"i{at}" for at in range(64)]
        return had.copy()

    return read_two


def test_who_reads_one_of_four_partitions_opens_a_merged_file_for_a_quarter_of_the_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_of_merged(4, tmp_path, monkeypatch)
    assert len(read(1)) <= len(read(0)) / 3


def test_who_reads_one_of_twelve_partitions_has_windows_of_four_times_the_rows_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_of_merged(12, tmp_path, monkeypatch)
    assert len(read(1)) <= len(read(0)) / 3
    assert max(read(1)) <= (windows.LARGEST + 1 / windows.PIECES) * windows.WINDOW_ROWS / 12 + 1


def test_who_reads_more_partitions_than_have_rows_has_windows_as_one_who_reads_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_of_merged(4, tmp_path, monkeypatch)
    assert read(12) == read(4) == read(0)


READ = """
import sys
from consumer.edge import windows
from consumer.edge.store import EdgeStore, Watermark
from tests.memory import memory
from trainer.graph.interactions import InteractionGraph
from trainer.graph.growth import grow
windows.WINDOW_ROWS = int(sys.argv[2])
before = memory("VmRSS")
graph = InteractionGraph()
for step in grow(graph, EdgeStore(sys.argv[1], "t"), Watermark()):
    pass
print(len(graph), memory("VmHWM") - before)
"""


@pytest.mark.long
def test_the_memory_of_a_reader_of_long_history_goes_with_edges_not_with_events(
    tmp_path: Path,
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    repeated = [(f"user-{n % 500}", f"item-{n % 20}", "view") for n in range(100_000)]
    made = rows(repeated, [(0, 0)] * len(repeated))
    for n in range(10):
        store.append(taken(made, n * 1_000_000), {0: n}, {0: n + 1}, store.newest())

    def read(window: int) -> tuple[int, int]:
        command = [sys.executable, "-c", READ, str(tmp_path), str(window)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        edges, mib = done.stdout.split()
        return int(edges), int(mib)

    few, all_at_once = read(100_000), read(10_000_000)
    assert few[0] == all_at_once[0] == 500
    assert few[1] < all_at_once[1] / 2
