"""Several ranks write a snapshot and go on from it, each with the parts of its own users."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from process.outage import Outage
from tests.ranks import ROOT, environment, together
from tests.services import PATIENCE
from tests.trainer.test_damage import READ, log
from tests.trainer.test_parts import IDS, OLD, USERS, VERSION, snapshot, users_of
from tests.trainer.test_ranks import walks
from trainer.graph.arrays import Bools
from trainer.group import RankLost
from trainer.lifecycle import files, pruning
from trainer.lifecycle.by_first import RankFailed, by_each
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.live_of_ranks import live_snapshot
from trainer.lifecycle.manifest import Snapshot, SnapshotError, StoreAway
from trainer.lifecycle.parts import Share, part_numbers, parts_for
from trainer.lifecycle.pruning import prune
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import Target
from trainer.lifecycle.writing import Writing
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet
from trainer.ranks import Ranks


def own(ranks: Ranks) -> Bools:
    made: Bools = part_numbers(pa.array(IDS), ranks.size) == ranks.rank
    return made


def writing(ranks: Ranks, folder: Path) -> tuple[Snapshots, Writing]:
    snapshots = Snapshots(str(folder / "models"))
    return snapshots, Writing(snapshots, ranks, Outage(log, "away", "back"), threading.Event())


def written_and_read(ranks: Ranks, folder: Path) -> None:
    """Written in parts, by each rank what it has; read, and read where one part is damaged."""
    snapshots, writer = writing(ranks, folder)
    for version in (OLD, VERSION):
        made = snapshot(version, parts_for(USERS, ranks), own(ranks))
        writer.write(made, lambda: None)
        if ranks.first:
            snapshots.promote(version)
    live = LiveModel(snapshots, log)
    found = live_snapshot(live, snapshots, ranks)
    assert found
    assert found.manifest.version == VERSION
    assert (
        users_of(snapshots, Share(ranks)) == found.user_ids.to_pylist() == made.user_ids.to_pylist()
    )
    ranks.said(b"")  # all have read it
    if ranks.first:
        (folder / "models" / VERSION / "tables-00001-of-00002.safetensors").write_bytes(b"broken")
    ranks.said(b"")
    found = live_snapshot(live, snapshots, ranks)
    assert found
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found.manifest.version))


def test_ranks_write_and_read_the_parts_of_their_own_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together("tests.trainer.test_parts_of_ranks:written_and_read", tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [OLD, OLD]  # what one rank cannot read is passed over by all
    snapshots = Snapshots(str(tmp_path / "models"))
    assert sorted(users_of(snapshots, Share(), OLD)) == sorted(IDS)
    assert snapshots.storage.folders().count(OLD) == 1
    assert not list(tmp_path.rglob("*.draft"))


def refused_on_one(ranks: Ranks, folder: Path) -> None:
    snapshots, writer = writing(ranks, folder)
    made = snapshot(VERSION, parts_for(USERS, ranks), own(ranks))
    if ranks.rank == 1:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        pq.write_table = full
    with pytest.raises(SnapshotError, match="No space left on device") as raised:
        writer.write(made, lambda: None)
    assert ("process 1 of this training" in str(raised.value)) == ranks.first
    ranks.said(b"")
    assert snapshots.storage.folders() == []


def test_where_the_disk_refuses_one_rank_all_know_and_nothing_is_left(tmp_path: Path) -> None:
    together("tests.trainer.test_parts_of_ranks:refused_on_one", tmp_path)


def on_disks_of_their_own(ranks: Ranks, folder: Path) -> None:
    snapshots, writer = writing(ranks, folder / str(ranks.rank))
    made = snapshot(VERSION, parts_for(USERS, ranks), own(ranks))
    with pytest.raises(SnapshotError, match="must have the same MODEL_STORE"):
        writer.write(made, lambda: None)
    assert snapshots.storage.folders() == []


def test_ranks_whose_stores_are_not_one_place_write_nothing(tmp_path: Path) -> None:
    together("tests.trainer.test_parts_of_ranks:on_disks_of_their_own", tmp_path)


def with_an_outage(ranks: Ranks, folder: Path) -> None:
    """One rank's object store is away at first, and a signal to stop comes when all is added."""
    snapshots = Snapshots(str(folder / "models"))
    stop, tries, add = threading.Event(), 0, snapshots.add

    def away(made: Snapshot, ranks: Ranks) -> None:
        nonlocal tries
        tries += 1
        if (ranks.rank, tries) == (1, 1):
            raise StoreAway("slow")
        add(made, ranks)
        if ranks.rank == 1:
            stop.set()

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(snapshots, "add", away)
    writer = Writing(snapshots, ranks, Outage(log, "away", "back", limit=0.1), stop)
    made = snapshot(VERSION, parts_for(USERS, ranks), own(ranks))
    writer.write(made, lambda: None)
    assert tries == 1 + ranks.rank  # who has written waits for the others
    assert sorted(users_of(snapshots, Share())) == sorted(IDS)


def test_a_rank_that_cannot_write_at_first_keeps_nobody_from_a_whole_snapshot(
    tmp_path: Path,
) -> None:
    together("tests.trainer.test_parts_of_ranks:with_an_outage", tmp_path)


def trained_again(ranks: Ranks, folder: Path) -> None:
    """Trainings that go on from a snapshot of which one file is missing, then another one too."""
    snapshots, writer = writing(ranks, folder)
    made = walks().shared(ranks)
    given = Hyperparameters(epochs=1, dim=8, negatives=32, vectors=4, learned_order=0.0)
    first = candidate(made, given.usual(), snapshots, None, quiet, READ)
    writer.write(first, lambda: None)
    for number, stem in enumerate(["start", "trained"]):
        name = f"{stem}-00001-of-00002.safetensors"
        if ranks.first:
            (folder / "models" / first.manifest.version / name).unlink()
        ranks.said(b"")
        live = snapshots.read(first.manifest.version, Share(ranks))
        second = candidate(made, given.usual(), snapshots, live, quiet, READ)
        (folder / f"{ranks.rank}-{number}").write_text(second.manifest.rejected)


def test_a_training_of_ranks_goes_on_where_one_part_of_the_live_model_is_missing(
    tmp_path: Path,
) -> None:
    together("tests.trainer.test_parts_of_ranks:trained_again", tmp_path)
    assert {path.name for path in tmp_path.glob("?-?")} == {"0-0", "1-0", "0-1", "1-1"}


def what_is_told(ranks: Ranks, folder: Path) -> None:
    """Errors of one rank, and of several ranks at once."""
    cases: list[tuple[list[Exception | None], type[Exception], str]] = [
        ([None, StoreAway("slow")], StoreAway, "slow"),
        ([StoreAway("slow"), SnapshotError("full disk")], SnapshotError, "full disk"),
        ([MemoryError("none left"), None], RankFailed, "process 0 of this training: MemoryError"),
    ]
    for errors, kind, text in cases:

        def act(error: Exception | None = errors[ranks.rank]) -> int:
            if error:
                raise error
            return 1

        with pytest.raises(kind, match=text) as raised:
            by_each(act, ranks)
        assert type(raised.value) is kind
    assert by_each(lambda: ranks.rank, ranks) == ranks.rank
    (folder / f"{ranks.rank}.json").write_text("well")


def test_what_fails_on_one_rank_fails_on_all_with_the_worse_of_two_errors(tmp_path: Path) -> None:
    together("tests.trainer.test_parts_of_ranks:what_is_told", tmp_path)
    assert [(tmp_path / f"{rank}.json").read_text() for rank in range(2)] == ["well"] * 2


def killed_on_one(ranks: Ranks, folder: Path) -> None:
    """One rank is killed in the middle of a part, the other says what it sees."""
    _, writer = writing(ranks, folder)
    made = snapshot(VERSION, parts_for(USERS, ranks), own(ranks))
    if ranks.rank == 1:

        def killed(target: Target, *_: object, **__: object) -> None:
            files.write_bytes(target, b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        files.write_ids = killed
    try:
        writer.write(made, lambda: None)
    except RankLost:
        (folder / "lost").touch()


def killed_all(ranks: Ranks, folder: Path) -> None:
    """All are killed before any has said that it is done."""
    snapshots, _ = writing(ranks, folder)
    snapshots.add(snapshot(VERSION, parts_for(USERS, ranks), own(ranks)), ranks)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("who", ["killed_on_one", "killed_all"])
def test_what_killed_ranks_have_begun_is_no_snapshot_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    snapshots = Snapshots(str(tmp_path / "models"))
    snapshots.write(snapshot(OLD, 1))
    snapshots.promote(OLD)
    command = [
        sys.executable,
        "-m",
        "tests.ranks",
        f"tests.trainer.test_parts_of_ranks:{who}",
        str(tmp_path),
    ]
    ranks = [subprocess.Popen(command, env=os.environ | of, cwd=ROOT) for of in environment(2)]
    codes = [each.wait(PATIENCE) for each in ranks]
    assert codes[1] == -signal.SIGKILL
    assert (tmp_path / "lost").exists() == (who == "killed_on_one")
    assert snapshots.versions() == [OLD]
    assert snapshots.marks.live() == OLD
    prune(snapshots)  # others may be at work on what was begun
    begun = list(tmp_path.rglob("*.draft"))
    assert bool(begun) == (who == "killed_all")
    monkeypatch.setattr(pruning, "ABANDONED_AFTER", -1.0)
    prune(snapshots)
    assert not list(tmp_path.rglob("*.draft"))
    assert sorted(users_of(snapshots, Share(), OLD)) == sorted(IDS)
