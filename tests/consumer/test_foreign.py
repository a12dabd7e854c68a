"""What is no consumer's: rows of another writer in the edge store, and paths for an edge store."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from consumer.edge import windows
from consumer.edge.schema import TABLE
from consumer.edge.store import EdgeStore
from consumer.ingest.batch import Batch
from consumer.kafka.client import Message
from process.settings import SettingsError
from tests.commands import run, without_settings
from tests.consumer.test_order import edges_of, put

ROW: dict[str, Any] = {
    "user_id": "x", "item_id": "i", "interaction": 1.0, "type": "view", "timestamp": 0,
    "kafka_partition": 0, "kafka_offset": 0, "log": 0, "ingested_at": 1, "kafka_row": 0,
}  # fmt: skip
FOREIGN = [
    {"interaction": math.nan}, {"interaction": math.inf}, {"interaction": 1e300},
    {"kafka_offset": 2**62}, {"kafka_offset": 2**63 - 1}, {"kafka_offset": -1},
    {"user_id": ""}, {"item_id": ""}, {"user_id": "u" * 300}, {"type": "t" * 300},
    {"kafka_partition": 77}, {"kafka_partition": 2**31 - 1}, {"kafka_partition": -5},
    {"log": 3}, {"log": -1}, {"log": 2**31 - 1}, {"ingested_at": 2**52},
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_a_foreign_row_in_the_store_is_left_out_and_named_once(
    foreign: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "PARTITIONS", 100)  # each is asked for, as a row names the last
    place = str(tmp_path / "edges")
    store = EdgeStore.begin(place, "t")
    put(store, [("u", "i", "view"), ("u", "j", "view")], [(0, 0), (0, 1)], at=1)
    row = ROW | foreign
    rows = pa.table({name: pa.array([row[name]], TABLE.field(name).type) for name in TABLE.names})
    write_deltalake(place, rows.cast(TABLE), mode="append")
    put(store, [("v", "i", "view")], [(0, 2)], at=2)
    for _ in range(2):
        assert edges_of(store) == {("u", "i"), ("u", "j"), ("v", "i")}
    assert caplog.text.count("are left out") == 1


def test_columns_that_another_program_adds_to_the_table_stop_nobody(tmp_path: Path) -> None:
    place = str(tmp_path / "edges")
    store = EdgeStore.begin(place, "t")
    put(store, [("u", "i", "view"), ("v", "i", "view")], [(0, 0), (0, 1)], at=1)
    foreign = pa.table({n: pa.array([ROW[n]], TABLE.field(n).type) for n in TABLE.names})
    noted = foreign.cast(TABLE).append_column("note", pa.array(["mine"]))
    write_deltalake(place, noted, mode="append", schema_mode="merge")
    put(store, [("u", "j", "view")], [(0, 2)], at=2)
    store.tidy()
    batch = Batch()
    values = b'{"user_id":"v","item_id":"j"}', b'{"user_id":"u","type":"forget"}'
    batch.take([Message("t", 0, 3 + n, -1, None, v, []) for n, v in enumerate(values)], 3, at=3)
    batch.write(store, store.newest())
    assert {pair for pair in edges_of(store) if pair[0] != "x"} == {("v", "i"), ("v", "j")}
    again = EdgeStore(place, "t")
    assert again.next_offset(0) == 5
    assert {pair for pair in edges_of(again) if pair[0] != "x"} == {("v", "i"), ("v", "j")}


@pytest.mark.parametrize("name", ["a%2Fb", "a%20b", "a[b]", "a\\b", "a^b", "a|b", "a\tb"])
def test_a_path_that_the_delta_library_confuses_is_refused_with_the_reason(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="is refused: the path"):
        EdgeStore.begin(str(tmp_path / name / "edges"), "t")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "ä ü", "100%", "a*b", "-x", "{a}"])
def test_an_edge_store_may_lie_below_a_folder_of_any_other_name(name: str, tmp_path: Path) -> None:
    store = EdgeStore.begin(str(tmp_path / name / "edges"), "t")
    put(store, [("u", "i", "view")], [(0, 0)], at=1)
    store.tidy()
    assert edges_of(EdgeStore(str(tmp_path / name / "edges"), "t")) == {("u", "i")}


def test_a_process_says_which_path_is_refused_and_ends_with_2(tmp_path: Path) -> None:
    place = str(tmp_path / "a%2Fb" / "edges")
    done = run(["status"], without_settings() | {"EDGE_STORE": place})
    assert done.returncode == 2
    assert "EDGE_STORE=" in done.stderr
    assert "%2F" in done.stderr
