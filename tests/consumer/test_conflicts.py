"""Writers of one edge store that commit at once: each waits for a moment of its own."""

import errno
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tenacity.nap
from deltalake import DeltaTable

from consumer.edge.conflicts import LONGEST_SECONDS, TRIES, Conflicts
from consumer.edge.schema import WITH_STATISTICS
from consumer.edge.store import Conflict, EdgeStore, Fenced, StoreError
from consumer.edge.table import Overtaken, Table
from tests.graphs import Row, append, stored
from tests.threads import at_once

WRITERS, COMMITS = 4, 10


class Moments:
    """Waits that a test notes and does not wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        monkeypatch.setattr(tenacity.nap, "time", self)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


def test_who_is_overtaken_waits_longer_and_longer_and_no_two_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = Moments(monkeypatch)

    def overtaken() -> None:
        raise Overtaken("another one was quicker")

    conflicts = [Conflicts() for _ in range(20)]
    for each in conflicts:
        with pytest.raises(Overtaken):
            each.try_again(overtaken)
    assert [each.count for each in conflicts] == [TRIES] * 20
    assert len(set(moments.seconds)) == len(moments.seconds) == 20 * (TRIES - 1)
    assert max(moments.seconds) <= LONGEST_SECONDS
    first, last = moments.seconds[:: TRIES - 1], moments.seconds[TRIES - 2 :: TRIES - 1]
    assert max(first) < sum(last) / len(last)


def test_what_is_no_conflict_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = Moments(monkeypatch)
    conflicts, tries = Conflicts(), []

    def fail(error: StoreError) -> None:
        tries.append(error)
        raise error

    for error in (StoreError("the disk is full"), Conflict("of another kind")):
        with pytest.raises(type(error)):
            conflicts.try_again(partial(fail, error))
    assert len(tries) == 2
    assert (conflicts.count, moments.seconds) == (0, [])


def test_many_writers_at_once_store_each_row_once_and_count_their_conflicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [EdgeStore.begin(str(tmp_path), "t") for _ in range(WRITERS)]
    overtaken = []
    real = Table.append

    def noted(table: Table, *given: object) -> None:
        try:
            real(table, *given)  # type: ignore[arg-type]  # passed on as given
        except Overtaken:
            overtaken.append(table)
            raise

    monkeypatch.setattr(Table, "append", noted)

    def write(partition: int) -> None:
        for number in range(COMMITS):
            append(stores[partition], [("u", f"{partition}-{number}")], number, partition)

    at_once(*(partial(write, partition) for partition in range(WRITERS)))
    rows = stored(stores[0])
    expected = sorted(f"{p}-{n}" for p in range(WRITERS) for n in range(COMMITS))
    assert sorted(rows["item_id"].to_pylist()) == expected
    assert overtaken
    assert sum(store.conflicts for store in stores) == len(overtaken)
    files = {path.name for path in tmp_path.glob("*.parquet")}
    assert files == {Path(uri).name for uri in DeltaTable(str(tmp_path)).file_uris()}


def test_a_commit_that_came_although_it_was_refused_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    real = Table.append

    def refused(table: Table, *given: object) -> None:
        monkeypatch.undo()
        real(table, *given)  # type: ignore[arg-type]  # passed on as given
        raise Overtaken("by itself: the answer was lost, and the next try found the commit")

    monkeypatch.setattr(Table, "append", refused)
    append(store, [("u", "a")], 0)
    append(store, [("u", "b")], 1)
    assert stored(store)["item_id"].to_pylist() == ["a", "b"]


def test_a_file_stays_where_the_last_try_of_a_commit_came_although_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    moments = Moments(monkeypatch)
    real, tries = Table.append, []

    def refused(table: Table, *given: object) -> None:
        tries.append(table)
        if len(tries) == TRIES:
            real(table, *given)  # type: ignore[arg-type]  # passed on as given
        raise Overtaken("at last by itself: the answer was lost")

    monkeypatch.setattr(Table, "append", refused)
    with pytest.raises(Overtaken):
        append(store, [("u", "a")], 0)
    assert len(moments.seconds) == TRIES - 1
    assert stored(store)["item_id"].to_pylist() == ["a"]


def test_a_file_that_could_not_be_written_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("replace", "sync"):
        with monkeypatch.context() as patched:
            patched.setattr(f"process.atomic.{step}", full)
            with pytest.raises(StoreError, match="No space left"):
                append(store, [("u", "a")], 0)
    assert [path.name for path in tmp_path.iterdir()] == ["_delta_log"]
    append(store, [("u", "a")], 0)
    assert stored(store)["item_id"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    "place", ["~/edges", "new/../edges", "file:{}/e d", "file://{}/x/../edges"]
)
def test_rows_go_to_the_folder_of_the_table_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    uri = place.format(str(tmp_path)[1:] if place.startswith("file:{}") else tmp_path)
    store = EdgeStore.begin(uri, "t")
    append(store, [("u", "a")], 0)
    assert stored(EdgeStore(uri, "t"))["item_id"].to_pylist() == ["a"]
    (log,) = tmp_path.rglob("_delta_log")
    assert [path.parent for path in tmp_path.rglob("*.parquet")] == [log.parent]


def test_a_writer_that_is_fenced_after_a_conflict_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, quick = (EdgeStore.begin(str(tmp_path), "t") for _ in range(2))
    real = Table.append

    def after_the_other(table: Table, *given: object) -> None:
        monkeypatch.undo()
        append(quick, [("u", "quick")], 0)
        real(table, *given)  # type: ignore[arg-type]  # passed on as given

    monkeypatch.setattr(Table, "append", after_the_other)
    with pytest.raises(Fenced):
        append(late, [("u", "late")], 0)
    assert stored(quick)["item_id"].to_pylist() == ["quick"]
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_a_files_statistics_are_those_of_the_rows(tmp_path: Path) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    rows: list[Row] = [("u", "a", 1.0, 1_700_000_000_123), ("v", "b", 1.0, 1_600_000_000_000)]
    append(store, rows, 0)
    found = pa.table(DeltaTable(str(tmp_path)).get_add_actions(flatten=True)).to_pylist()[0]
    held = stored(store)
    for name in WITH_STATISTICS:
        ends = pc.min_max(held[name]).as_py()
        assert found[f"min.{name}"] == ends["min"], name
        assert found[f"max.{name}"] == ends["max"], name
        assert found[f"null_count.{name}"] == 0
    assert found["num_records"] == 2
    assert not [name for name in found if "user_id" in name or "item_id" in name]
