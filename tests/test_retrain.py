"""The trainer's process: what it does with a store that grows and with what goes wrong."""

import logging
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore
from tests.graphs import append, blocks, pairs, store
from tests.rooms import STREAMGCN
from tests.services import wait_for
from trainer import choose, retrain
from trainer.lifecycle.snapshots import Snapshots
from trainer.retrain import Retrain
from trainer.settings import TrainerSettings
from trainer.train import Diverged

SMALL = {
    "STREAMGCN_VECTORS": "4", "STREAMGCN_EMBEDDING_DIM": "8", "STREAMGCN_EPOCHS": "20",
    "STREAMGCN_MIN_EDGES": "10", "STREAMGCN_RETRAIN_EDGES": "10", "KAFKA_TOPIC": "t",
}  # fmt: skip
PRIORS = {
    f"STREAMGCN_{name.upper()}": str(value)
    for name, value in choose.PRIORS.items()
    if name in TrainerSettings.model_fields
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerSettings:
    places = {"EDGE_STORE": str(tmp_path / "edges"), "MODEL_STORE": str(tmp_path / "models")}
    for name, value in (SMALL | PRIORS | places).items():
        monkeypatch.setenv(name, value)
    return TrainerSettings.load()


@pytest.fixture
def snapshots(settings: TrainerSettings) -> Snapshots:
    return Snapshots(settings.model_store)


def once(trainer: Retrain) -> None:
    """One look at the store."""
    trainer._read()
    if trainer._due():
        trainer._retrain()


def test_an_empty_store_trains_nothing(settings: TrainerSettings, snapshots: Snapshots) -> None:
    EdgeStore.begin(settings.edge_store, "t")
    once(Retrain(settings, threading.Event()))
    assert snapshots.versions() == []


def test_a_grown_store_is_retrained_from_the_live_snapshot(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = pairs(blocks())
    made = store(Path(settings.edge_store), rows)
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.live()
    assert "from scratch" in caplog.text
    once(trainer)
    assert snapshots.live() == first  # nothing new
    append(made, [(f"0-new{n}", f"0-{n % 12}") for n in range(12)], len(rows))
    once(trainer)
    assert f"going on from {first}" in caplog.text
    live = snapshots.live()
    assert live is not None
    assert live != first
    manifest = snapshots.read(live).manifest
    assert manifest.users == 132
    assert manifest.chosen_at == len(rows)


def test_a_rejected_candidate_is_kept_and_said_and_the_live_model_stays(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.live()
    monkeypatch.setattr(retrain, "objection", lambda *_: "it is worse")
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    once(trainer)
    newest = snapshots.versions()[-1]
    assert snapshots.live() == first != newest
    assert snapshots.read(newest).manifest.rejected == "it is worse"
    assert f"Snapshot {newest} is rejected: it is worse." in caplog.text


@pytest.mark.parametrize("fault", ["diverged", "full disk", "memory", "torch"])
def test_a_training_that_fails_leaves_the_live_model(
    fault: str,
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.live()

    def fail(*_: object, **__: object) -> None:
        raise {
            "diverged": Diverged("the loss is nan in epoch 3; nothing of it is kept"),
            "full disk": OSError(28, "No space left on device"),
            "memory": MemoryError("out of it"),
            "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        }[fault]

    target = (
        "trainer.lifecycle.snapshots.save_file" if fault == "full disk" else "trainer.retrain.fit"
    )
    monkeypatch.setattr(target, fail)
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    once(trainer)
    assert snapshots.live() == first
    assert snapshots.versions() == [first]
    assert "This training is lost, the live model stays:" in caplog.text


def test_the_graph_is_weighed_as_the_settings_say(
    settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGCN_TYPE_WEIGHTS", "view=2")
    monkeypatch.setenv("STREAMGCN_EDGE_WEIGHT", "sum")
    store(Path(settings.edge_store), [("u", "i"), ("u", "i", 3.0)])
    trainer = Retrain(TrainerSettings.load(), threading.Event())
    trainer._read()
    assert trainer._graph.weights.tolist() == [8.0]


def test_without_any_positive_edge_the_training_is_lost_and_the_process_goes_on(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    store(Path(settings.edge_store), [(f"u{n}", f"i{n % 7}", -1.0) for n in range(30)])
    once(Retrain(settings, threading.Event()))
    assert snapshots.versions() == []
    assert "no edge has a weight above 0" in caplog.text


def test_without_what_the_live_snapshot_left_to_go_on_from_it_starts_from_scratch(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.live()
    assert first
    (Path(settings.model_store) / first / "start.safetensors").unlink()
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    once(trainer)
    assert snapshots.live() != first
    assert caplog.text.count("from scratch") == 3  # twice for the training, once for the reason


def test_a_signal_in_the_middle_of_a_training_ends_it_and_keeps_nothing_of_it(
    settings: TrainerSettings, tmp_path: Path
) -> None:
    store(Path(settings.edge_store), pairs(blocks()))
    log = tmp_path / "log"
    endless = os.environ | {"STREAMGCN_EPOCHS": "100000000"}
    with log.open("w") as output:
        trainer = subprocess.Popen([*STREAMGCN, "trainer"], env=endless, stderr=output)
    try:
        wait_for("the training", lambda: "from scratch" in log.read_text())
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(30) == 0
    finally:
        trainer.kill()
    assert "Told to stop in the middle of a training; the live model stays." in log.read_text()
    assert list(Path(settings.model_store).rglob("*")) == []


def test_retraining_is_due_at_first_then_after_enough_new_edges_or_a_doubling(
    tmp_path: Path,
) -> None:
    settings = TrainerSettings(
        edge_store=str(tmp_path / "edges"), model_store=str(tmp_path / "models"),
        kafka_topic="t", min_edges=10, retrain_edges=30, epochs=1, embedding_dim=4,
    )  # fmt: skip
    trainer = Retrain(settings, threading.Event())
    written = EdgeStore.begin(settings.edge_store, "t")
    trained, before = [], 0
    for edges in (9, 10, 15, 20, 35, 49, 50, 60, 80):
        append(written, [("u", f"i{n}") for n in range(before, edges)], before)
        before = edges
        trainer._read()
        if trainer._due():
            trainer._retrain()
            trained.append(edges)
    assert trained == [10, 20, 49, 80]  # min_edges, doubled, past 30 new ones or doubled, 30 new
