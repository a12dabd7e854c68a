import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from consumer.edge.traces import digest
from trainer.embedding.blend import BlendEmbeddings
from trainer.lifecycle import files
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError, new_version
from trainer.lifecycle.pruning import ABANDONED_AFTER, NEWEST, prune
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import File
from trainer.lifecycle.trained_edges import Trained

VERSION = "20260101T000000.0Z"
PART = "-00000-of-00001"
OF_USERS = ("tables", "start", "trained")  # besides the ids
NAMES = [f"202601{day:02}T000000.0Z" for day in range(1, 20)]


def snapshot(version: str, rejected: str = "") -> Snapshot:
    """Two users a, b with edges a-x, a-y, b-y; three items; dimension 4."""
    settings: dict[str, str | int | float | None] = {"dim": 4, "learned_power": 0.5}
    manifest = Manifest(
        version, "lightgcn", 3, True, 1, 2, 3, 3, 5, {0: 7}, settings, {"ndcg@20": 0.5}, {},
        rejected=rejected, stamp=7,
    )  # fmt: skip
    tensors = {
        "base": torch.rand(2, 4), "incoming": torch.rand(3, 4), "outgoing": torch.rand(3, 4),
        "strengths": torch.ones(3), "scales": torch.tensor([0.0, 0.0, 1.0]),
    }  # fmt: skip
    made = BlendEmbeddings("lightgcn", 3, True, tensors)
    ids = pa.array(["a", "b"]), pa.array(["x", "y", "\x00é"])
    start = {"users": torch.rand(2, 4), "items": torch.rand(3, 4), "basis": torch.rand(3, 2).half()}
    columns = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1], dtype=torch.int32)
    trained = Trained(*columns, torch.tensor([False, True, False]))
    return Snapshot(manifest, made, *ids, start, trained)


def filled(model_store: Path | str, *versions: str) -> Snapshots:
    """A store with these snapshots, the last of them live."""
    snapshots = Snapshots(str(model_store))
    for version in versions:
        snapshots.write(snapshot(version))
        snapshots.promote(version)
    return snapshots


@contextmanager
def full_disk() -> Iterator[None]:
    """No file takes a byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_written_is_read(model_store: str) -> None:
    snapshots, written = Snapshots(model_store), snapshot(VERSION)
    snapshots.write(written)
    read = snapshots.read(VERSION)
    assert read.manifest == written.manifest
    assert read.item_ids == written.item_ids
    torch.testing.assert_close(read.embeddings.tensors, written.embeddings.tensors)
    torch.testing.assert_close(snapshots.start(read.manifest), written.start)
    trained = snapshots.trained(read.manifest)
    assert trained
    assert written.trained
    torch.testing.assert_close(trained.tensors(), written.trained.tensors())


def test_the_folders_of_models_are_for_their_owner_alone(tmp_path: Path) -> None:
    filled(tmp_path / "models", VERSION)
    modes = [(tmp_path / "models" / name).stat().st_mode & 0o777 for name in (".", VERSION)]
    assert modes == [0o700, 0o700]


def test_the_live_pointer_moves_to_whole_snapshots_alone(model_store: str) -> None:
    snapshots = Snapshots(model_store)
    assert snapshots.marks.live() is None
    snapshots.write(snapshot(VERSION))
    snapshots.promote(VERSION)
    assert snapshots.marks.live() == VERSION
    with pytest.raises(SnapshotError, match="there is no snapshot 2027"):
        snapshots.promote("2027")
    assert snapshots.marks.live() == VERSION


def test_a_snapshot_that_cannot_be_finished_leaves_nothing(
    model_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.lifecycle.files.pq.write_table", full)
    snapshots = Snapshots(model_store)
    with pytest.raises(SnapshotError, match="No space left on device"):
        snapshots.write(snapshot(VERSION))
    assert snapshots.versions() == []
    assert snapshots.storage.folders() == []


def test_a_snapshot_is_on_the_disk_before_it_is_named_and_named_before_it_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut may undo is what was not synced, so the order is what counts."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"{target.name} is there")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    filled(tmp_path / "models", VERSION)
    there = done.index(f"{VERSION} is there")
    files = {path.name for path in (tmp_path / "models" / VERSION).iterdir()} - {"promoted"}
    assert files == {
        "manifest.json", "tables.safetensors", "start.safetensors", "items.parquet",
        f"users{PART}.parquet", *(f"{name}{PART}.safetensors" for name in OF_USERS),
    }  # fmt: skip
    assert files <= set(done[:there])
    live = done.index("live is there")
    assert "models" in done[there:live]  # its name, in the list of names of the folder
    assert done[live - 1].startswith(".live")
    assert done[live + 1 :] == ["models"]


def test_a_version_is_later_than_all_others_even_when_the_clock_went_back() -> None:
    assert new_version(["20991231T235959.999999Z"]) == "21000101T000000.000000Z"
    assert new_version([VERSION]) > VERSION


def test_five_rejected_snapshots_do_not_push_out_what_one_can_go_back_to(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:4])
    for name in NAMES[4 : 4 + NEWEST + 1]:
        snapshots.write(snapshot(name, rejected="it is worse"))
    prune(snapshots)
    assert snapshots.versions() == [*NAMES[1:4], *NAMES[5 : 5 + NEWEST]]


def test_what_was_live_last_is_kept_also_after_going_back(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:12])
    for name in (NAMES[0], NAMES[11], NAMES[1]):
        snapshots.promote(name)
        time.sleep(0.002)  # that the times differ
    prune(snapshots)
    assert snapshots.versions() == [*NAMES[:2], *NAMES[7:12]]
    assert snapshots.marks.live() == NAMES[1]


def test_a_draft_of_another_trainer_stays_until_it_is_abandoned(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, VERSION)
    for name in (".1.draft", ".2.draft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tables.safetensors").write_bytes(b"begun")
    long_ago = time.time() - ABANDONED_AFTER - 1
    os.utime(tmp_path / ".1.draft", (long_ago, long_ago))
    os.utime(tmp_path / ".1.draft" / "tables.safetensors", (long_ago, long_ago))
    os.utime(tmp_path / ".2.draft", (long_ago, long_ago))  # its file is written still
    prune(snapshots)
    assert not (tmp_path / ".1.draft").exists()
    assert (tmp_path / ".2.draft").exists()


def test_a_forgotten_user_goes_and_one_who_came_again_stays(model_store: str) -> None:
    snapshots = filled(model_store, VERSION)  # of edges up to stamp 7
    assert erase(snapshots, {digest("b"): 7}) == []
    assert erase(snapshots, {digest("a"): 8}) == [VERSION]
    read = snapshots.read(VERSION)
    assert read.user_ids.to_pylist() == ["", "b"]
    assert not read.embeddings.tensors["base"][0].any()
    assert not snapshots.start(read.manifest)["users"][0].any()
    trained = snapshots.trained(read.manifest)
    assert trained
    assert trained.starts.tolist() == [0, 0, 1]
    assert trained.items.tolist() == [1]
    assert erase(snapshots, {digest("b"): 8}) == [VERSION]
    assert snapshots.holding("a") == snapshots.holding("b") == []


def test_who_is_forgotten_leaves_what_one_can_go_back_to_and_rejected_snapshots_go(
    model_store: str,
) -> None:
    snapshots = filled(model_store, *NAMES[:2])
    snapshots.write(snapshot(NAMES[2], rejected="it is worse"))
    assert snapshots.holding("a") == NAMES[:3]
    assert erase(snapshots, {digest("a"): 8}) == NAMES[:3]
    assert snapshots.versions() == NAMES[:2]
    assert [snapshots.read(name).user_ids.to_pylist() for name in NAMES[:2]] == [["", "b"]] * 2


def test_a_broken_snapshot_does_not_keep_others_from_being_forgotten(
    model_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = filled(model_store, *NAMES[:4])
    snapshots.storage.write(f"{NAMES[0]}/users{PART}.parquet", b"\x00" * 9)
    snapshots.storage.write(f"{NAMES[1]}/tables{PART}.safetensors", b"\x00" * 9)
    snapshots.storage.write(f"{NAMES[2]}/manifest.json", b"{}")
    assert erase(snapshots, {digest("a"): 8}) == NAMES[1:4]
    assert snapshots.versions() == [NAMES[0], *NAMES[2:4]]
    assert snapshots.user_ids(NAMES[2], PART).to_pylist() == ["", "b"]
    assert f"delete {snapshots.storage.place(NAMES[0])}" in caplog.text


def test_a_disk_that_is_full_in_an_erasure_costs_no_snapshot(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, VERSION)
    before = snapshots.read(VERSION)
    with full_disk(), pytest.raises(SnapshotError, match=r"tables-.*\.safetensors.*too large"):
        erase(snapshots, {digest("a"): 8})
    torch.testing.assert_close(
        snapshots.read(VERSION).embeddings.tensors, before.embeddings.tensors
    )
    assert not list(tmp_path.rglob("*.draft"))
    assert erase(snapshots, {digest("a"): 8}) == [VERSION]
    assert snapshots.holding("a") == []


def test_a_snapshot_that_lacks_a_file_is_erased_from_the_others(model_store: str) -> None:
    snapshots = filled(model_store, VERSION)
    snapshots.storage.delete(f"{VERSION}/start{PART}.safetensors")
    assert erase(snapshots, {digest("a"): 8}) == [VERSION]
    assert snapshots.read(VERSION).user_ids.to_pylist() == ["", "b"]
    assert not snapshots.read(VERSION).embeddings.tensors["base"][0].any()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("trained", {"starts": torch.tensor([0, 5, 3])}),
        ("trained", {"starts": torch.tensor([0, 2, 2**60])}),
        ("trained", {"starts": torch.tensor([0.0, 2.0, 3.0])}),
        ("trained", {"starts": torch.tensor(3)}),
        ("trained", {"held_out": torch.tensor([True])}),
        ("tables", {"base": torch.zeros(3, 4)}),
        ("tables", {"base": torch.tensor(0.5)}),
        ("start", {"users": torch.zeros(2, 4).to(torch.float8_e5m2)}),
    ],
)
def test_a_snapshot_with_a_file_that_does_not_fit_the_users_is_deleted_by_an_erasure(
    tmp_path: Path, name: str, wrong: dict[str, Tensor]
) -> None:
    snapshots = filled(tmp_path, *NAMES[:2])
    path = tmp_path / NAMES[0] / f"{name}{PART}.safetensors"
    save_file(load_file(path) | wrong, path, {"version": NAMES[0] + PART})
    assert erase(snapshots, {digest("a"): 8}) == NAMES[:2]
    assert snapshots.versions() == [NAMES[1]]


@pytest.mark.parametrize("name", ["trained", "tables", "start"])
def test_a_file_that_cannot_be_opened_now_costs_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    snapshots, read = filled(tmp_path, VERSION), files.read_tensors

    def refused(file: File, version: str) -> dict[str, Tensor]:
        if file.place.endswith(f"/{name}{PART}.safetensors"):
            raise RuntimeError("unable to mmap: Cannot allocate memory")
        return read(file, version)

    with monkeypatch.context() as patched:
        patched.setattr(files, "read_tensors", refused)
        with pytest.raises(RuntimeError, match="unable to mmap"):
            erase(snapshots, {digest("a"): 8})
    assert erase(snapshots, {digest("a"): 8}) == [VERSION]
    assert snapshots.read(VERSION).user_ids.to_pylist() == ["", "b"]


def test_a_mark_that_cannot_be_read_costs_no_snapshot_that_was_live(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, *NAMES[:3])
    for name in NAMES[3:12]:
        snapshots.write(snapshot(name, rejected="it is worse"))
    mark = tmp_path / NAMES[1] / "promoted"
    mark.unlink()
    mark.mkdir()
    prune(snapshots)
    assert erase(snapshots, {digest("a"): 8}) == [*NAMES[:3], *NAMES[7:12]]
    assert snapshots.versions() == NAMES[:3]


def test_while_nobody_knows_what_is_live_an_erasure_deletes_no_snapshot(model_store: str) -> None:
    snapshots = filled(model_store, VERSION)
    snapshots.storage.delete(f"{VERSION}/promoted")
    snapshots.storage.write("live", b"damaged")
    assert erase(snapshots, {digest("a"): 8}) == [VERSION]
    assert snapshots.read(VERSION).user_ids.to_pylist() == ["", "b"]
