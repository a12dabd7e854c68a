"""A snapshot's users lie in parts: each rank writes its own, and a reader keeps what it needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from consumer.edge.traces import digest
from tests.trainer.test_damage import FIRST_EDITION
from trainer.embedding.blend import BlendEmbeddings
from trainer.graph.arrays import Bools
from trainer.lifecycle import files
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.manifest import Manifest, Snapshot, SnapshotError
from trainer.lifecycle.parts import NOBODY, Share, part_names, part_numbers, parts_for
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import File, Storage
from trainer.lifecycle.trained_edges import Trained
from trainer.ranks import Ranks

USERS, ITEMS, DIM = 60, 7, 3
OLD, VERSION = "20260101T000000.0Z", "20260102T000000.0Z"
IDS = [f"user-{n}" for n in range(USERS)]


class Rank(Ranks):
    """One of several, who says nothing to the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def snapshot(version: str, parts: int, own: Bools | None = None) -> Snapshot:
    """User n has a base row of n, a row of -n to go on from, and the edges 0 to n % 4; `own`: of
    these users alone."""
    settings: dict[str, str | int | float | None] = {"dim": DIM, "learned_power": 0.5}
    manifest = Manifest(
        version, "lightgcn", 1, True, 1, USERS, ITEMS, 90, 1, {}, settings, {}, {}, parts=parts
    )
    users = torch.arange(USERS) if own is None else torch.from_numpy(np.flatnonzero(own))
    rows = users[:, None].float().repeat(1, DIM)
    tensors = {
        "base": rows, "incoming": torch.ones(ITEMS, DIM), "outgoing": torch.ones(ITEMS, DIM),
        "strengths": torch.ones(ITEMS), "scales": torch.tensor([0.0, 0.0, 1.0]),
    }  # fmt: skip
    counts = users % 4
    items = torch.cat([torch.arange(int(n)) for n in counts]).int()
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return Snapshot(
        manifest, BlendEmbeddings("lightgcn", 1, True, tensors),
        pa.array([IDS[n] for n in users.tolist()], pa.string()),
        pa.array([f"item-{n}" for n in range(ITEMS)]),
        {"users": -rows, "items": torch.ones(ITEMS, DIM)},
        Trained(starts, items, items > 1),
    )  # fmt: skip


def filled(model_store: Path | str, parts: int) -> Snapshots:
    snapshots = Snapshots(str(model_store))
    snapshots.write(snapshot(VERSION, parts))
    snapshots.promote(VERSION)
    return snapshots


def users_of(snapshots: Snapshots, share: Share, version: str = VERSION) -> list[str]:
    """The users who are read, after a look whether each has what the user was given."""
    read = snapshots.read(version, share)
    start = snapshots.start(read.manifest, share)["users"]
    trained = snapshots.trained(read.manifest, share)
    assert trained
    base = read.embeddings.tensors["base"]
    ids: list[str] = read.user_ids.to_pylist()
    assert len(base) == len(start) == len(ids) == len(trained.starts) - 1
    for row, user in enumerate(ids):
        if user:
            n = IDS.index(user)
            assert base[row].tolist() == [n] * DIM
            assert start[row].tolist() == [-n] * DIM
            begin, end = trained.starts[row : row + 2].tolist()
            assert trained.items[begin:end].tolist() == [*range(n % 4)]
            assert trained.held_out[begin:end].tolist() == [item > 1 for item in range(n % 4)]
    return ids


@pytest.mark.parametrize("parts", [1, 4, 20])
def test_all_users_are_read_however_many_parts_there_are(model_store: str, parts: int) -> None:
    snapshots = filled(model_store, parts)
    assert sorted(users_of(snapshots, Share())) == sorted(IDS)
    assert len(snapshots.parts(VERSION)) == parts


@pytest.mark.parametrize("parts", [1, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_any_number_of_ranks_reads_each_user_once(tmp_path: Path, parts: int, size: int) -> None:
    snapshots = filled(tmp_path, parts)
    found = [users_of(snapshots, Share(Rank(rank, size))) for rank in range(size)]
    assert sorted(user for each in found for user in each) == sorted(IDS)
    for rank, each in enumerate(found):
        assert (part_numbers(pa.array(each, pa.string()), size) == rank).all()


def opened(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> list[str]:
    """The names of files that are opened from now on."""
    seen: list[str] = []
    file = type(storage).file

    def noted(self: Storage, name: str) -> File:
        seen.append(name.partition("/")[2])
        return file(self, name)

    monkeypatch.setattr(type(storage), "file", noted)
    return seen


def test_a_rank_opens_the_parts_of_its_own_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = filled(tmp_path, 4)
    seen = opened(monkeypatch, snapshots.storage)
    users_of(snapshots, Share(Rank(1, 2)))
    parts = {name.partition("-")[2][:5] for name in seen if "-of-" in name}
    assert parts == {"00002", "00003"}


def test_a_reader_keeps_the_users_whom_it_asks_for_and_opens_each_table_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = filled(tmp_path, 4)
    asked: list[int] = []

    def keep(ids: pa.Array) -> Bools:
        asked.append(len(ids))
        return np.array([user.endswith("7") for user in ids.to_pylist()], np.bool_)

    share = Share(keep=keep, with_rows=True)
    assert sorted(users_of(snapshots, share)) == sorted(user for user in IDS if user[-1] == "7")
    asked.clear()
    seen = opened(monkeypatch, snapshots.storage)
    assert snapshots.read(VERSION, share).embeddings.n_users == 6
    assert len(asked) == 4
    assert sum(asked) == USERS
    assert len(seen) == len(set(seen)) == 4 + 4 + 2  # ids and tables of users, and of the items
    assert snapshots.read(VERSION, NOBODY).embeddings.n_users == 0


def test_where_users_have_no_rows_serving_opens_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = snapshot(VERSION, 4)
    made.embeddings.tensors["base"] = torch.zeros(USERS, 0)
    made.embeddings.tensors["squares"] = torch.zeros(0)
    made.start.clear()
    snapshots = Snapshots(str(tmp_path))
    snapshots.write(made)
    seen = opened(monkeypatch, snapshots.storage)
    read = snapshots.read(VERSION, Share(keep=lambda ids: pytest.fail(str(ids)), with_rows=True))
    assert (read.embeddings.n_users, len(read.user_ids)) == (0, 0)
    assert [name for name in seen if "-of-" in name] == ["tables-00000-of-00004.safetensors"]
    assert sorted(snapshots.read(VERSION).user_ids.to_pylist()) == sorted(IDS)


def test_a_snapshot_of_before_is_read_by_ranks(tmp_path: Path) -> None:
    shutil.copytree(FIRST_EDITION, tmp_path / "models")
    snapshots = Snapshots(str(tmp_path / "models"))
    version = snapshots.versions()[0]
    whole = snapshots.read(version)
    assert whole.manifest.parts == 0
    found: list[str] = []
    edges = 0
    for rank in range(3):
        share = Share(Rank(rank, 3))
        read = snapshots.read(version, share)
        ids = read.user_ids.to_pylist()
        found += ids
        rows = [whole.user_ids.to_pylist().index(user) for user in ids]
        base = whole.embeddings.tensors["base"][rows]
        torch.testing.assert_close(read.embeddings.tensors["base"], base)
        assert len(snapshots.start(read.manifest, share)["users"]) == len(ids)
        trained = snapshots.trained(read.manifest, share)
        edges += len(trained.items) if trained else 0
    assert sorted(found) == sorted(whole.user_ids.to_pylist())
    trained = snapshots.trained(whole.manifest)
    assert edges == (len(trained.items) if trained else 0)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20 if path.suffix == ".parquet" else -1] ^= 1
    path.write_bytes(content)


FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "turned": damaged,
    "of another part": lambda path: shutil.copy(
        path.with_name(path.name.replace(path.name.split("-")[1], "00001")), path
    ),
    "of another snapshot": lambda path: shutil.copy(path.parent.parent / OLD / path.name, path),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stem", ["tables", "users", "start", "trained"])
@pytest.mark.parametrize("part", [0, 2])
def test_a_part_that_is_wrong_is_named(tmp_path: Path, fault: str, stem: str, part: int) -> None:
    snapshots = Snapshots(str(tmp_path))
    snapshots.write(snapshot(OLD, 4))
    filled(tmp_path, 4)
    name = f"{stem}-{part:05}-of-00004.{'parquet' if stem == 'users' else 'safetensors'}"
    FAULTS[fault](tmp_path / VERSION / name)
    with pytest.raises(SnapshotError, match=name):
        users_of(snapshots, Share())
    for rank in range(4):  # who does not need it does not mind
        if rank != part:
            users_of(snapshots, Share(Rank(rank, 4)))


def test_a_part_more_or_less_is_told(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, 4)
    path = tmp_path / VERSION / "users-00003-of-00004.parquet"
    told = VERSION + "-00003-of-00004"
    files.write_ids(path, "user_id", pa.array(["one"]), told)
    with pytest.raises(SnapshotError, match="users in all; the manifest says 60"):
        snapshots.read(VERSION)
    assert part_names(["users.parquet", "users-00001-of-00002.parquet", "users.parquet.1"]) == [
        "", "-00001-of-00002"
    ]  # fmt: skip


@pytest.mark.parametrize("user", ["user-0", "user-31", "user-59"])
def test_who_is_forgotten_leaves_whichever_part_it_is(model_store: str, user: str) -> None:
    snapshots = filled(model_store, 4)
    before = snapshots.storage.states(VERSION)
    assert snapshots.holding(user) == [VERSION]
    assert erase(snapshots, {digest(user): 1}) == [VERSION]
    assert snapshots.holding(user) == []
    left = ["" if each == user else each for each in IDS]
    assert sorted(users_of(snapshots, Share())) == sorted(left)
    changed = [name for name, of in snapshots.storage.states(VERSION).items() if of != before[name]]
    part = f"-{part_numbers(pa.array([user]), 4)[0]:05}-of-00004"
    assert changed
    assert all(part in name for name in changed), changed


def test_the_other_parts_of_a_snapshot_with_a_broken_part_are_erased(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = filled(tmp_path, 4)
    user = next(user for user in IDS if part_numbers(pa.array([user]), 4)[0] == 3)
    damaged(tmp_path / VERSION / "users-00001-of-00004.parquet")
    assert erase(snapshots, {digest(user): 1}) == [VERSION]
    assert "users-00001-of-00004.parquet" in caplog.text
    assert user not in snapshots.user_ids(VERSION, "-00003-of-00004").to_pylist()
    with pytest.raises(SnapshotError, match="users-00001-of-00004"):
        snapshots.holding(user)  # nobody knows


def test_users_are_found_where_a_file_goes_away_while_the_folder_is_listed(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, 4)
    (tmp_path / VERSION / ".promoted.1.draft").symlink_to("gone")  # listed, and then not there
    assert snapshots.holding("user-0") == [VERSION]
    assert erase(snapshots, {digest("user-0"): 1}) == [VERSION]
    assert snapshots.holding("user-0") == []


def test_there_is_a_part_for_each_million_users_and_as_many_of_each_rank() -> None:
    assert [parts_for(users, Rank(0, 1)) for users in (0, 10**6, 10**6 + 1, 10**8)] == [
        1, 1, 2, 100
    ]  # fmt: skip
    assert [parts_for(users, Rank(0, 8)) for users in (0, 8 * 10**6, 10**8)] == [8, 8, 104]
