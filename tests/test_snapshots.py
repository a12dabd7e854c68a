from pathlib import Path

import pyarrow as pa
import pytest
import torch

from consumer.edge.traces import digest
from trainer.embeddings import Embeddings
from trainer.lifecycle.snapshots import KEPT, Manifest, Snapshot, SnapshotError, Snapshots


def snapshot(version: str) -> Snapshot:
    manifest = Manifest(
        version,
        "lightgcn",
        3,
        True,
        1,
        2,
        3,
        4,
        5,
        {0: 7},
        {"dim": 4},
        {"ndcg@20": 0.5},
        {},
        stamp=7,
    )
    tensors = {"base": torch.rand(2, 4), "outgoing": torch.rand(3, 6)}
    made = Embeddings("lightgcn", 3, True, tensors)
    ids = pa.array(["a", "b"]), pa.array(["x", "y", "\x00é"])
    return Snapshot(manifest, made, *ids, {"basis": torch.rand(3, 2).half()})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    snapshots, written = Snapshots(str(tmp_path)), snapshot("20260101T000000.0Z")
    snapshots.write(written)
    read = snapshots.read(written.manifest.version)
    assert read.manifest == written.manifest
    assert read.item_ids == written.item_ids
    torch.testing.assert_close(read.embeddings.tensors, written.embeddings.tensors)
    torch.testing.assert_close(snapshots.start(written.manifest.version), written.start)


def test_the_live_pointer_moves_to_whole_snapshots_alone(tmp_path: Path) -> None:
    snapshots = Snapshots(str(tmp_path))
    assert snapshots.live() is None
    snapshots.write(snapshot("20260101T000000.0Z"))
    snapshots.promote("20260101T000000.0Z")
    assert snapshots.live() == "20260101T000000.0Z"
    with pytest.raises(SnapshotError, match="there is no snapshot 2027"):
        snapshots.promote("2027")
    assert snapshots.live() == "20260101T000000.0Z"


def test_a_snapshot_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.lifecycle.snapshots.pq.write_table", full)
    snapshots = Snapshots(str(tmp_path))
    with pytest.raises(SnapshotError, match="No space left on device"):
        snapshots.write(snapshot("20260101T000000.0Z"))
    assert snapshots.versions() == []
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    snapshots = Snapshots(str(tmp_path))
    snapshots.write(snapshot("20260101T000000.0Z"))
    (tmp_path / "20260101T000000.0Z" / "tables.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(SnapshotError, match="cannot read snapshot"):
        snapshots.read("20260101T000000.0Z")


def test_pruning_keeps_the_live_and_the_newest(tmp_path: Path) -> None:
    snapshots = Snapshots(str(tmp_path))
    names = [f"202601{day:02}T000000.0Z" for day in range(1, KEPT + 4)]
    for name in names:
        snapshots.write(snapshot(name))
    snapshots.promote(names[0])
    (tmp_path / ".20270101.draft").mkdir()
    snapshots.prune()
    assert snapshots.versions() == [names[0], *names[-KEPT:]]
    assert not (tmp_path / ".20270101.draft").exists()


def test_a_forgotten_user_goes_and_one_who_came_again_stays(tmp_path: Path) -> None:
    snapshots, version = Snapshots(str(tmp_path)), "20260101T000000.0Z"
    snapshots.write(snapshot(version))  # of edges up to stamp 7
    snapshots.promote(version)
    assert snapshots.erase({digest("b"): 7}) == []
    assert snapshots.erase({digest("a"): 8}) == [version]
    assert snapshots.read(version).user_ids.to_pylist() == ["", "b"]
    assert not snapshots.read(version).embeddings.tensors["base"][0].any()
    assert snapshots.erase({digest("b"): 8}) == [version]
