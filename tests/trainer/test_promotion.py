"""An operator changes which model is live, beside a trainer."""

import logging
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from consumer.edge.traces import digest
from tests.services import PATIENCE
from tests.threads import begun
from tests.trainer.test_snapshots import NAMES, filled, snapshot
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.marks import Changing
from trainer.lifecycle.promotion import LiveChanged, promote, put_live, roll_back
from trainer.lifecycle.pruning import NEWEST, prune


def test_a_rollback_goes_one_step_back_and_a_second_one_goes_further(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:3])
    assert roll_back(snapshots) == (NAMES[2], NAMES[1])
    assert roll_back(snapshots) == (NAMES[1], NAMES[0])
    with pytest.raises(SnapshotError, match=f"no model was live before {NAMES[0]}"):
        roll_back(snapshots)
    assert snapshots.marks.live() == NAMES[0]


def test_a_rollback_takes_back_the_promotion_of_an_older_model(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:3])
    promote(snapshots, NAMES[0])
    assert roll_back(snapshots) == (NAMES[0], NAMES[2])


def test_a_rollback_passes_over_a_damaged_model(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:3])
    snapshots.storage.write(f"{NAMES[1]}/tables.safetensors", b"")
    assert roll_back(snapshots) == (NAMES[2], NAMES[0])


def test_a_rollback_leaves_a_live_model_whose_folder_is_gone(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:2])
    snapshots.storage.delete_folder(NAMES[1])
    assert roll_back(snapshots) == (NAMES[1], NAMES[0])
    assert snapshots.marks.live() == NAMES[0]


def test_a_rollback_that_cannot_write_the_pointer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = filled(tmp_path, *NAMES[:2])

    def full(version: str) -> None:
        raise SnapshotError(f"cannot make {version} live: the disk is full")

    monkeypatch.setattr(snapshots.marks, "point_to", full)
    with pytest.raises(SnapshotError, match="the disk is full"):
        roll_back(snapshots)


def test_after_two_rollbacks_the_model_that_a_third_one_needs_is_kept(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:4])
    roll_back(snapshots)
    roll_back(snapshots)
    for name in NAMES[4 : 4 + NEWEST]:
        snapshots.write(snapshot(name, rejected="it is worse"))
    prune(snapshots)
    assert roll_back(snapshots) == (NAMES[1], NAMES[0])


def test_a_damaged_or_unknown_model_is_not_promoted(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:2])
    snapshots.storage.write(f"{NAMES[0]}/items.parquet", b"")
    with pytest.raises(SnapshotError, match=r"items\.parquet"):
        promote(snapshots, NAMES[0])
    with pytest.raises(SnapshotError, match=r"there is no snapshot \.\./x"):
        promote(snapshots, "../x")
    assert snapshots.marks.live() == NAMES[1]


def test_a_candidate_does_not_replace_a_model_that_it_was_not_judged_against(
    model_store: str,
) -> None:
    snapshots = filled(model_store, *NAMES[:2])
    snapshots.write(snapshot(NAMES[2]))
    promote(snapshots, NAMES[0])  # by an operator, while the candidate is trained
    with pytest.raises(LiveChanged, match=NAMES[0]):
        put_live(snapshots, NAMES[2], instead_of=NAMES[1])
    put_live(snapshots, NAMES[2], instead_of=NAMES[0])
    assert snapshots.marks.live() == NAMES[2]


def test_pruning_waits_for_a_promotion_and_keeps_what_went_live(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, *NAMES[:1])
    for name in NAMES[1:10]:
        snapshots.write(snapshot(name, rejected="worse"))

    def act(marks: Changing) -> "Future[None]":
        pruning = begun(prune, snapshots)
        snapshots.promote_in(marks, NAMES[3])
        assert not wait([pruning], 0.2).done
        return pruning

    snapshots.marks.change(act).result(PATIENCE)
    assert {NAMES[0], NAMES[3]} < set(snapshots.versions())
    assert NAMES[2] not in snapshots.versions()


def test_an_erasure_waits_for_a_promotion_and_keeps_what_went_live(tmp_path: Path) -> None:
    snapshots = filled(tmp_path, *NAMES[:1])
    snapshots.write(snapshot(NAMES[1], rejected="worse"))

    def act(marks: Changing) -> "Future[list[str]]":
        erasing = begun(erase, snapshots, {digest("a"): 8})
        assert not wait([erasing], 0.2).done
        snapshots.promote_in(marks, NAMES[1])
        return erasing

    snapshots.marks.change(act).result(PATIENCE)
    assert snapshots.read(NAMES[1]).user_ids.to_pylist() == ["", "b"]


def test_a_withdrawn_model_does_not_take_the_place_of_a_damaged_one(
    model_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = filled(model_store, *NAMES[:3])
    roll_back(snapshots)
    snapshots.storage.write(f"{NAMES[1]}/tables.safetensors", b"")
    snapshots.storage.write(f"{NAMES[0]}/tables.safetensors", b"")
    assert LiveModel(snapshots, logging.getLogger("test")).read() is None
    assert "there is none before it" in caplog.text
