"""The trainer's process: what it does with a store that grows and with what goes wrong."""

import logging
import os
import shutil
import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich import live

from consumer.edge.store import EdgeStore
from tests.commands import Command, run
from tests.graphs import Row, append, blocks, pairs, store
from tests.services import PATIENCE, wait_for
from tests.threads import running
from trainer import retrain
from trainer.graph import stored as stored_graph
from trainer.lifecycle import candidate, lease, schedule
from trainer.lifecycle.manifest import Snapshot, SnapshotError, StoreAway
from trainer.lifecycle.promotion import promote
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.gradient_training import Diverged
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.model_file import written
from trainer.ranks import Ranks
from trainer.retrain import Retrain
from trainer.settings import TrainerSettings

SMALL = {
    "STREAMGCN_EPOCHS": "20", "STREAMGCN_MIN_EDGES": "10", "STREAMGCN_RETRAIN_EDGES": "10",
    "KAFKA_TOPIC": "t", "STREAMGCN_EDGE_WEIGHT": "last",
}  # fmt: skip
NUMBERS = Hyperparameters(dim=8, vectors=4)


LIGHT, NEXT = 0, 1
EITHER = pytest.mark.parametrize(
    "settings", [LIGHT, NEXT], indirect=True, ids=["LightGCN", "next items"]
)


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainerSettings:
    """With LightGCN as the learned part, unless the test asks for next items."""
    places = {"EDGE_STORE": str(tmp_path / "edges"), "MODEL_STORE": str(tmp_path / "models")}
    for name, value in (SMALL | places).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREAMGCN_MODEL_FILE", str(tmp_path / "model.toml"))
    numbers = replace(NUMBERS, learned_order=getattr(request, "param", LIGHT)).usual()
    (tmp_path / "model.toml").write_text(written(numbers))
    return TrainerSettings.load()


@pytest.fixture
def snapshots(settings: TrainerSettings) -> Snapshots:
    return Snapshots(settings.model_store)


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training begins as soon as one is due, and is tried again soon."""
    monkeypatch.setattr(schedule, "REST", 0.0)
    monkeypatch.setattr(schedule, "GROWN_REST", 0.0)
    monkeypatch.setattr(schedule, "FIRST_RETRY", 0.2)
    monkeypatch.setattr(lease, "SETTLE", 0.0)


def in_order(rows: list[Row], begin: int) -> list[Row]:
    """The rows with times, each later than the one before."""
    return [(user, item, 1.0, at) for at, (user, item, *_) in enumerate(rows, begin + 1)]


def once(trainer: Retrain) -> bool:
    """One look at the store."""
    trainer._turn()
    return True


def again(trainer: Retrain, snapshots: Snapshots) -> str:
    """Look until there is a new snapshot, and return its version."""
    before = snapshots.versions()[-1:]

    def newer() -> list[str]:
        once(trainer)
        return [version for version in snapshots.versions() if [version] > before]

    return wait_for("a training", newer)[-1]


def test_an_empty_store_trains_nothing(settings: TrainerSettings, snapshots: Snapshots) -> None:
    EdgeStore.begin(settings.edge_store, "t")
    once(Retrain(settings, threading.Event()))
    assert snapshots.versions() == []


def test_the_trainer_says_how_many_edges_have_no_strength(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = [*pairs(blocks()), ("0-0", "0-odd", 0.0), ("0-1", "0-odd", -1.0)]
    store(Path(settings.edge_store), rows)
    once(Retrain(settings, threading.Event()))
    assert (
        f"on {len(rows)} edges (2 of them without strength: a weight of 0 or less)" in caplog.text
    )


@EITHER
def test_a_grown_store_is_retrained_from_the_live_snapshot(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = in_order(pairs(blocks()), 0)
    made = store(Path(settings.edge_store), rows)
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.marks.live()
    assert "from scratch" in caplog.text
    once(trainer)
    assert snapshots.marks.live() == first  # nothing new
    new: list[Row] = [(f"0-new{n}", f"0-{n % 12}") for n in range(12)]
    append(made, in_order(new, len(rows)), len(rows))
    again(trainer, snapshots)
    assert f"going on from {first}" in caplog.text
    live = snapshots.marks.live()
    assert live is not None
    assert live != first
    manifest = snapshots.read(live).manifest
    assert manifest.users == 132
    assert manifest.chosen_at == len(rows)
    kind = ("users", "items"), ("incoming", "outgoing")
    tables = kind[int(manifest.settings["learned_order"] or 0)]
    assert snapshots.start(manifest).keys() == {"basis", *tables}


def test_a_rejected_candidate_is_kept_and_said_and_the_live_model_stays(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.marks.live()
    monkeypatch.setattr(candidate, "objection", lambda *_: "it is worse")
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    newest = again(trainer, snapshots)
    assert snapshots.marks.live() == first != newest
    assert snapshots.read(newest).manifest.rejected == "it is worse"
    assert f"Model {newest} is rejected: it is worse." in caplog.text


FAULTS = {
    "diverged": Diverged("the loss is nan in epoch 3; nothing of it is kept"),
    "full disk": OSError(28, "No space left on device"),
    "memory": MemoryError("out of it"),
    "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory\nat a place of its own"),
    "a fault of ours": KeyError("what"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_training_that_fails_leaves_the_live_model_and_is_tried_again_without_a_new_event(
    fault: str,
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.marks.live()
    failures = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal failures
        failures += 1
        raise FAULTS[fault]

    files = "trainer.lifecycle.files.save_file"
    target = files if fault == "full disk" else "trainer.lifecycle.candidate.fit_kept"
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    with monkeypatch.context() as broken:
        broken.setattr(target, fail)
        wait_for("the second failure", lambda: once(trainer) and failures == 2)
        assert snapshots.marks.live() == first
        assert snapshots.versions() == [first]
    lines = [line for line in caplog.messages if "Training failed" in line]
    assert [line.rsplit(". ", 1)[1] for line in lines] == [
        "It is tried again in 0 s.", "It is tried again in 0 s."
    ]  # fmt: skip
    assert not any("\n" in line for line in lines)
    assert again(trainer, snapshots) == snapshots.marks.live() != first


def test_a_model_is_kept_until_an_object_store_that_is_away_takes_it(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    store(Path(settings.edge_store), pairs(blocks()))
    add, tries = Snapshots.add, [1, 2]

    def late(self: Snapshots, snapshot: Snapshot, ranks: Ranks) -> None:
        if tries:
            raise StoreAway(f"cannot write it: try {tries.pop()}")
        add(self, snapshot, ranks)

    monkeypatch.setattr(Snapshots, "add", late)
    once(Retrain(settings, threading.Event()))
    assert snapshots.marks.live() == snapshots.versions()[0]
    assert caplog.text.count("cannot be used (cannot write it") == 1
    assert caplog.text.count("can be used again") == 1
    assert caplog.text.count("Training ") == caplog.text.count("Training will run on ") + 1


def test_a_trainer_whose_reading_fails_says_so_in_one_line_and_goes_on(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    store(Path(settings.edge_store), pairs(blocks()))
    monkeypatch.setattr(retrain, "LOOK_EVERY", 0.01)
    with ExitStack() as stack:
        with monkeypatch.context() as broken:
            broken.setattr(stored_graph, "grow", lambda *_: dict[str, object]()["a column"])
            stack.enter_context(running(lambda stop: Retrain(settings, stop).run()))
            wait_for("the line", lambda: "An unexpected error in the trainer" in caplog.text)
        wait_for("a model", snapshots.marks.live)
    assert (
        caplog.text.count("An unexpected error in the trainer (KeyError at test_retrain.py:") == 1
    )
    assert "The trainer works again" in caplog.text


def test_the_graph_is_weighed_as_the_settings_say(
    settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGCN_TYPE_WEIGHTS", "view=2")
    monkeypatch.setenv("STREAMGCN_EDGE_WEIGHT", "sum")
    store(Path(settings.edge_store), [("u", "i"), ("u", "i", 3.0)])
    trainer = Retrain(TrainerSettings.load(), threading.Event())
    trainer._read()
    assert trainer._edges.graph.weights.tolist() == [8.0]


def test_without_any_positive_edge_the_training_is_lost_and_the_process_goes_on(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    store(Path(settings.edge_store), [(f"u{n}", f"i{n % 7}", -1.0) for n in range(30)])
    once(Retrain(settings, threading.Event()))
    assert snapshots.versions() == []
    assert "no edge has a weight above 0" in caplog.text


def test_users_who_all_have_one_item_lead_to_no_model_until_one_has_two(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    made = store(Path(settings.edge_store), [(f"u{n}", f"i{n % 7}") for n in range(30)])
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    assert snapshots.versions() == []
    assert "none of the 30 users has two items" in caplog.text
    append(made, [("u0", "i1")], 30)
    assert again(trainer, snapshots) == snapshots.marks.live()


def test_without_what_the_live_snapshot_left_to_go_on_from_it_starts_from_scratch(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.marks.live()
    assert first
    (Path(settings.model_store) / first / "start.safetensors").unlink()
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(pairs(blocks())))
    assert again(trainer, snapshots) == snapshots.marks.live() != first
    assert caplog.text.count("from scratch") == 3  # twice for the training, once for the reason


def test_a_signal_in_the_middle_of_a_training_ends_it_and_keeps_nothing_of_it(
    settings: TrainerSettings, tmp_path: Path
) -> None:
    store(Path(settings.edge_store), pairs(blocks()))
    log = tmp_path / "log"
    endless = os.environ | {"STREAMGCN_EPOCHS": "100000000"}
    with log.open("w") as output:
        trainer = Command(["trainer"], endless, stderr=output)
    try:
        wait_for("the training", lambda: "from scratch" in log.read_text())
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(PATIENCE) == 0
    finally:
        trainer.kill()
        trainer.wait()
    assert (
        "The training was stopped, as the process ends; the live model stays in use."
        in log.read_text()
    )
    assert list(Path(settings.model_store).rglob("*")) == []  # the lease is given back, too


@pytest.mark.parametrize("settings", [NEXT], indirect=True)
def test_a_training_of_next_items_that_is_stopped_in_the_middle_leaves_nothing(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMGCN_EPOCHS", "100000000")
    caplog.set_level(logging.INFO)
    store(Path(settings.edge_store), in_order(pairs(blocks()), 0))
    stop = threading.Event()
    trainer = Retrain(TrainerSettings.load(), stop)
    look, steps = trainer._look, 0

    def stopped_at_the_third_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            stop.set()
        look()

    monkeypatch.setattr(trainer, "_look", stopped_at_the_third_step)
    trainer.run()
    assert steps == 3
    assert "The training was stopped, as the process ends; the live model stays" in caplog.text
    assert snapshots.versions() == []


def test_five_thousand_views_of_known_items_do_not_make_a_training_due(
    settings: TrainerSettings, snapshots: Snapshots
) -> None:
    rows = pairs(blocks())
    made = store(Path(settings.edge_store), rows)
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    append(made, [rows[n % 50] for n in range(5_000)], len(rows))
    once(trainer)
    assert len(snapshots.versions()) == 1


def test_a_second_trainer_stands_by_and_takes_over_when_the_first_one_ends(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    store(Path(settings.edge_store), pairs(blocks()))
    first, second = (Retrain(settings, threading.Event()) for _ in range(2))
    once(first)
    once(second)
    assert len(snapshots.versions()) == 1
    assert "Another trainer holds" in caplog.text
    first._lease.release()
    assert again(second, snapshots) == snapshots.marks.live()


def test_a_trainer_that_lost_the_lease_in_a_training_puts_nothing_live(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())

    def taken_over(*arguments: object) -> str:
        (Path(settings.model_store) / lease.LEASE).write_text('{"id": "another"}')
        return ""

    monkeypatch.setattr(candidate, "objection", taken_over)
    once(trainer)
    assert snapshots.marks.live() is None
    assert snapshots.versions() == []
    assert (
        "The training was stopped and its model dropped: another trainer has taken" in caplog.text
    )


def test_the_gcn_under_torchrun_is_refused_in_words(settings: TrainerSettings) -> None:
    several = os.environ | {"WORLD_SIZE": "2", "RANK": "0", "STREAMGCN_MODEL": "gcn"}
    ended = run(["trainer"], several)
    assert ended.returncode == 2
    assert "STREAMGCN_MODEL=gcn is refused under torchrun" in ended.stderr


def test_a_trainer_of_several_that_torchrun_has_not_started_ends_with_one_line(
    settings: TrainerSettings,
) -> None:
    ended = run(["trainer"], os.environ | {"WORLD_SIZE": "2"})
    assert ended.returncode == 1
    assert "WORLD_SIZE=2, but the processes do not find each other" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_in_the_place_of_the_model_store_is_refused_at_the_start(
    settings: TrainerSettings,
) -> None:
    place = Path(settings.model_store)
    place.write_text("a file")
    for store_ in (place, place / "below"):
        env = os.environ | {"MODEL_STORE": str(store_)}
        ended = run(["trainer"], env)
        assert ended.returncode == 2
        assert f"MODEL_STORE={store_} is refused: {place} is a file" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_model_store_that_is_deleted_is_said_and_gets_a_new_model(
    settings: TrainerSettings, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    once(trainer)
    shutil.rmtree(settings.model_store)
    assert again(trainer, snapshots) == snapshots.marks.live()
    assert caplog.text.count(f"There is no live model in {settings.model_store} any more") == 1


def test_a_model_store_that_cannot_be_used_is_waited_for_and_one_that_is_restored_is_used(
    settings: TrainerSettings,
    snapshots: Snapshots,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rows = pairs(blocks())
    made = store(Path(settings.edge_store), rows)
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = snapshots.marks.live()
    place, aside = Path(settings.model_store), Path(settings.model_store + ".aside")
    place.rename(aside)
    place.write_text("a file")
    append(made, [(f"0-{n}", "0-0") for n in range(30)], len(rows))
    for _ in range(3):
        once(trainer)
    assert caplog.text.count("cannot be used") == 1
    place.unlink()
    aside.rename(place)
    assert again(trainer, snapshots) == snapshots.marks.live() != first
    assert "can be used again" in caplog.text
    assert f"going on from {first}" in caplog.text


def test_the_first_model_waits_for_no_choosing_and_the_chosen_one_follows_at_once(
    settings: TrainerSettings, snapshots: Snapshots
) -> None:
    assert settings.model_file
    settings.model_file.write_text("vectors = 4\ndim = 8\n")
    store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(TrainerSettings.load(), threading.Event())
    first = snapshots.read(again(trainer, snapshots)).manifest
    assert snapshots.marks.live() == first.version
    assert first.chosen_at == 0
    assert first.settings["learned_weight"] == 0
    second = snapshots.read(again(trainer, snapshots)).manifest
    assert snapshots.marks.live() == second.version
    assert second.chosen_at == second.edges
    once(trainer)
    assert snapshots.versions() == [first.version, second.version]


def test_a_model_that_an_operator_puts_live_during_a_training_stays_live(
    settings: TrainerSettings, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = store(Path(settings.edge_store), pairs(blocks()))
    trainer = Retrain(settings, threading.Event())
    once(trainer)
    first = again(trainer, snapshots) if not snapshots.versions() else snapshots.versions()[0]
    append(edges, [("new", f"0-{n}") for n in range(12)], len(pairs(blocks())))
    second = again(trainer, snapshots)
    assert snapshots.marks.live() == second

    def interrupted(*arguments: Any) -> Snapshot:
        promote(snapshots, first)
        return candidate.candidate(*arguments)

    monkeypatch.setattr(retrain, "candidate", interrupted)
    append(edges, [("newer", f"1-{n}") for n in range(12)], len(pairs(blocks())) + 12)
    third = again(trainer, snapshots)
    assert snapshots.marks.live() == first
    assert f"{first} was made live while this one was trained" in snapshots.manifest(third).rejected


def test_a_model_that_is_live_is_said_to_be_live_where_old_ones_cannot_be_deleted(
    settings: TrainerSettings, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def away(_: Snapshots) -> None:
        raise SnapshotError("the folder is away")

    monkeypatch.setattr(retrain, "prune", away)
    store(Path(settings.edge_store), pairs(blocks()))
    caplog.set_level(logging.INFO)
    once(Retrain(settings, threading.Event()))
    assert f"Model {snapshots.marks.live()} is live" in caplog.text
    assert "Old snapshots cannot be deleted: the folder is away." in caplog.text
    assert "Training failed" not in caplog.text


def test_a_training_that_fails_on_a_terminal_leaves_no_bar_behind(
    settings: TrainerSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # so that rich takes it for a terminal too
    usual = sys.stdout, sys.stderr
    bars: list[int] = []

    def diverging(*arguments: Any) -> Snapshot:
        arguments[4]("training", 1, 9, 0.5)
        bars.append(refreshing())
        raise Diverged("the loss is nan")

    def refreshing() -> int:
        return sum(isinstance(each, live._RefreshThread) for each in threading.enumerate())

    monkeypatch.setattr(retrain, "candidate", diverging)
    store(Path(settings.edge_store), pairs(blocks()))
    once(Retrain(settings, threading.Event()))
    assert "the loss is nan" in caplog.text
    assert bars == [1]
    assert refreshing() == 0
    assert (sys.stdout, sys.stderr) == usual
