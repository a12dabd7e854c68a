import logging
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA, TABLE
from consumer.edge.store import EdgeStore, Fenced, StoreError, Watermark
from consumer.edge.waiting import wait_for_store
from process.shutdown import Stopped
from tests.graphs import stored
from tests.threads import at_once


def rows(partition: int, begin: int, end: int) -> pa.Table:
    made = pa.table(
        [
            [f"u{n}" for n in range(begin, end)],
            [f"i{n}" for n in range(begin, end)],
            [1.0] * (end - begin),
            ["view"] * (end - begin),
            pa.array(range(begin, end), pa.timestamp("us", tz="UTC")),
            pa.array([partition] * (end - begin), pa.int32()),
            pa.array(range(begin, end), pa.int64()),
        ],
        schema=SCHEMA,
    )
    return taken(made, 0)


def put(store: EdgeStore, made: pa.Table, first: dict[int, int], after: dict[int, int]) -> None:
    store.append(made, first, after, store.newest())


def opened(place: Path) -> EdgeStore:
    return EdgeStore.begin(str(place), "t")


def test_rows_and_offsets_land_together_and_any_delta_reader_sees_them(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.next_offset(3) is None
    put(store, rows(3, 0, 10), {3: 0}, {3: 10})
    assert opened(tmp_path).next_offset(3) == 10
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 10


def test_a_commit_of_rejected_messages_alone_moves_the_offset_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, TABLE.empty_table(), {0: 0}, {0: 4})
    assert opened(tmp_path).next_offset(0) == 4


def test_a_consumer_that_lost_its_partition_is_fenced_and_writes_nothing(tmp_path: Path) -> None:
    late, owner = opened(tmp_path), opened(tmp_path)
    put(owner, rows(0, 0, 5), {0: 0}, {0: 5})
    put(owner, rows(0, 5, 9), {0: 5}, {0: 9})
    with pytest.raises(Fenced, match="stored up to 9, not 5"):
        put(late, rows(0, 5, 9), {0: 5}, {0: 9})
    assert owner.count() == 9


def test_of_two_writers_of_one_partition_at_the_same_time_one_is_fenced(tmp_path: Path) -> None:
    stores = [opened(tmp_path) for _ in range(2)]
    fenced = []

    def write(store: EdgeStore, begin: int) -> None:
        try:
            put(store, rows(0, begin, begin + 10), {0: begin}, {0: begin + 10})
        except Fenced:
            fenced.append(begin)

    for begin in range(0, 200, 10):
        at_once(*(partial(write, store, begin) for store in stores))
    found = stored(stores[0])
    assert found["kafka_offset"].to_pylist() == list(range(200))
    assert fenced == list(range(0, 200, 10))


def test_writers_of_different_partitions_do_not_fence_each_other(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    put(first, rows(0, 0, 5), {0: 0}, {0: 5})
    put(second, rows(1, 0, 5), {1: 0}, {1: 5})
    assert (first.next_offset(1), second.next_offset(0)) == (5, 5)


def test_readers_get_the_rows_past_the_watermark_in_order_also_after_compaction(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    for begin in range(0, 50, 10):
        put(store, rows(1, begin, begin + 10), {1: begin}, {1: begin + 10})
    seen = Watermark(store.id).after(stored(store))
    assert seen.offsets(0) == {1: 50}
    put(store, rows(1, 50, 60), {1: 50}, {1: 60})
    put(store, rows(0, 0, 3), {0: 0}, {0: 3})
    store.tidy()
    new = stored(store, seen)
    assert new["kafka_offset"].to_pylist() == [*range(50, 60), 0, 1, 2]
    assert seen.after(new).offsets(0) == {0: 3, 1: 60}
    assert store.next_offset(1) == 60
    assert store.count() == 63


def test_changed_says_whether_there_is_something_new(tmp_path: Path) -> None:
    reader, writer = opened(tmp_path), opened(tmp_path)
    seen = reader.news(Watermark()).end(Watermark())
    assert not reader.changed(seen)
    put(writer, rows(0, 0, 1), {0: 0}, {0: 1})
    assert reader.changed(seen)


def test_a_store_that_cannot_be_made_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    place = str(tmp_path / "file" / "edges")
    with pytest.raises(StoreError, match=place):
        EdgeStore(place, "t")


def test_waiting_for_a_store_ends_when_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        wait_for_store(str(tmp_path / "file" / "edges"), "t", stop, logging.getLogger("t"))


COMMITS = """
import os, sys
from tests.consumer.test_edges import rows
from consumer.edge.store import EdgeStore
store = EdgeStore.begin(sys.argv[1], "t")
log = store.begin_log("id", None)
for n in range(95):
    store.append(rows(0, n, n + 1), {0: n}, {0: n + 1}, log)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc has no list of threads")
def test_the_threads_of_a_consumer_do_not_grow_with_its_commits(tmp_path: Path) -> None:
    """Whoever opens the table reads the commits since the last checkpoint, on a thread for each."""
    done = subprocess.run(
        [sys.executable, "-c", COMMITS, str(tmp_path / "edges")],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert int(done.stdout) < 50 + (os.cpu_count() or 1)
