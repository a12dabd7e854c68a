"""The trainer's process as torchrun starts it several times: from an edge store to a live model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.commands import without_settings
from tests.graphs import Row, append, pairs, store
from tests.ranks import ROOT, rank, trainers
from tests.services import PATIENCE, wait_for
from tests.trainer.test_ranks import EDGES, USERS, walks
from trainer.embedding.edges import Own
from trainer.lifecycle.lease import LEASE
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.snapshots import Snapshots

SETTINGS = {
    "STREAMGCN_MIN_EDGES": "1000", "STREAMGCN_RETRAIN_EDGES": "1000", "KAFKA_TOPIC": "t",
    "STREAMGCN_EDGE_WEIGHT": "last", "STREAMGCN_EPOCHS": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip
BROKEN = """
import os
if os.environ.get("RANK") == "1":
    from trainer.model import transitions
    def fails(*_):
        raise MemoryError("there is no memory left")
    transitions.kernel = fails
"""
LONG = 3 * PATIENCE  # seconds: the two processes take turns a thousand times
# Little is left to be chosen: the transitions, the low pass's damping and the weights.
NUMBERS = """
dim = 16
vectors = 32
negatives = 128
learned_power = 0.0
low_pass_normalization = 0.5
low_pass_power = 0.4
neighbors_weight = 0.0
"""


def rows() -> list[Row]:
    """The edges of `walks`, in an order in which users come one after another."""
    made = walks()
    return [
        (user, item, 1.0, int(at))
        for (user, item, *_), at in zip(pairs(made), made.timestamps, strict=True)
    ]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "model.toml").write_text(NUMBERS)
    places = {
        "EDGE_STORE": str(tmp_path / "edges"), "MODEL_STORE": str(tmp_path / "models"),
        "STREAMGCN_MODEL_FILE": str(tmp_path / "model.toml"),
    }  # fmt: skip
    return without_settings() | SETTINGS | places


def chosen(snapshots: Snapshots, edges: int) -> Manifest | None:
    """The live model of so many edges, if the numbers of it are chosen."""
    version = snapshots.marks.live()
    manifest = snapshots.manifest(version) if version else None
    return manifest if manifest and manifest.chosen_at and manifest.edges == edges else None


def test_trainers_under_torchrun_make_one_model_and_the_next_start_goes_on_after_a_kill(
    env: dict[str, str], tmp_path: Path
) -> None:
    first = rows()
    made, snapshots = store(env["EDGE_STORE"], first), Snapshots(env["MODEL_STORE"])
    logs = [tmp_path / name for name in ("first", "killed", "again")]
    with trainers(env, logs[0]):
        manifest = wait_for("a chosen model", lambda: chosen(snapshots, len(first)), LONG)
    assert logs[0].read_text().count("is live; serving loads it next.") == 2
    assert logs[0].read_text().count("Stopped.") == 1  # the first process says it for all
    assert not (tmp_path / "models" / LEASE).exists()
    assert manifest.users == USERS
    assert manifest.metrics["recall@20"] > 0.3
    snapshot, trained = snapshots.read(manifest.version), snapshots.trained(manifest)
    assert sorted(snapshot.user_ids.to_pylist()) == sorted(f"u{n}" for n in range(USERS))
    assert trained is not None
    assert trained.starts.diff().tolist() == [EDGES] * USERS

    more: list[Row] = [
        (f"new{n}", f"i{10 * (n % 40) + step}" if step else "i-new", 1.0, 100 + step)
        for n in range(120)
        for step in range(10)
    ]
    append(made, more, len(first))
    endless = env | {"STREAMGCN_EPOCHS": "100000000"}
    with trainers(endless, logs[1]) as process:
        going_on = f"going on from {manifest.version}"
        wait_for("a training", lambda: going_on in logs[1].read_text())
        os.kill(rank(process, 1), signal.SIGKILL)
        assert process.wait(PATIENCE) != 0
    assert logs[1].read_text().count("another process of this training has ended, or") == 1
    assert snapshots.marks.live() == manifest.version
    assert snapshots.versions()[-1] == manifest.version

    with trainers(env, logs[2]):
        edges = len(first) + len(more)
        manifest = wait_for("the next model", lambda: chosen(snapshots, edges), LONG)
    assert going_on in logs[2].read_text()
    snapshot = snapshots.read(manifest.version)
    assert manifest.users == USERS + 120
    assert "i-new" in snapshot.item_ids.to_pylist()
    assert best(snapshot, ["i3", "i4", "i5"]) & {f"i{n}" for n in range(6, 12)}


def best(snapshot: Snapshot, items: list[str]) -> set[str]:
    """The five best items of a user who has these, the newest last."""
    names = snapshot.item_ids.to_pylist()
    numbers = torch.tensor([names.index(item) for item in items])
    ages = torch.arange(len(items) - 1, -1, -1)
    own = Own(torch.tensor([0, len(items)]), numbers, torch.ones(len(items)), ages)
    scores = snapshot.embeddings.score(torch.tensor([-1]), own)[0]
    scores[numbers] = -torch.inf
    return {names[n] for n in scores.topk(5).indices}


def test_what_goes_wrong_on_one_process_ends_all_with_one_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    store(env["EDGE_STORE"], rows())
    log = tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    with trainers(env | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, log) as process:
        assert process.wait(PATIENCE) != 0
    lines = [line for line in log.read_text().splitlines() if "this training ends" in line]
    assert len(lines) == 1
    assert "process 1 of this training ends, and all others with it: MemoryError" in lines[0]
    assert Snapshots(env["MODEL_STORE"]).versions() == []
