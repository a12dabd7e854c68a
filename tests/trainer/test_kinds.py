"""Which kind the learned part is of: what is set, what a file or recency tells, what is live."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest

from consumer.edge.store import Watermark
from process.settings import SettingsError
from tests.graphs import blocks, timed
from tests.trainer.test_transitions import chain
from trainer.fit.fit import fit
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.manifest import Manifest
from trainer.lifecycle.snapshots import Snapshots
from trainer.model import lightgcn
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.learned import LIGHTGCN, Learned
from trainer.model.model_file import filled_by, written
from trainer.model.progress import quiet

LIGHT = Hyperparameters(learned_order=0.0)
NEXT = Hyperparameters(learned_order=1.0)
TIMED, SIZE = True, 1_000
TINY = Hyperparameters(dim=4, epochs=1, vectors=4, negatives=8)
TABLES = ({"users", "items"}, {"incoming", "outgoing"})  # of LightGCN, of next items


def read(text: str, folder: Path, loss: Literal["bpr"] | None = None) -> Hyperparameters:
    (folder / "model.toml").write_text(text)
    return filled_by(folder / "model.toml", Hyperparameters(loss=loss))


def test_a_file_that_an_earlier_version_has_printed_stays_the_model_that_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    was = replace(LIGHT, temperature=0.2, negative_power=1.0, edge_drop=0.3, recency=0.75).usual()
    lines = written(was).splitlines()
    printed = "\n".join(line for line in lines if not line.startswith("learned_order"))
    made = read(printed, tmp_path).for_graph(SIZE, TIMED)
    assert made == was
    assert not made.missing()
    [line] = caplog.messages
    assert "does not read edge_drop and layers and negative_power. Remove this from" in line


@pytest.mark.parametrize(
    ("text", "predicts_next"),
    [
        ("", True),
        ("temperature = 0.2", True),
        ("layers = 2", False),
        ("recency = 0", False),
        ("recency = 0\nlearned_order = 1", True),
        ("recency = 0.5", True),
        ("learned_order = 0", False),
    ],
)
def test_a_file_tells_the_kind_of_the_learned_part(
    text: str, predicts_next: bool, tmp_path: Path
) -> None:
    made = read(text, tmp_path).for_graph(SIZE, TIMED)
    assert made.predicts_next == predicts_next
    assert made.usual().learned_order == float(predicts_next)


def test_without_times_the_learned_part_is_lightgcn_unless_it_is_set() -> None:
    assert Hyperparameters().for_graph(SIZE, not TIMED).learned_order == 0
    assert NEXT.for_graph(SIZE, not TIMED).predicts_next


@pytest.mark.parametrize("of", [{"model": "lightgcn"}, {"loss": "bpr"}])
def test_what_can_only_be_lightgcn_is_lightgcn(of: dict[str, str]) -> None:
    made = Hyperparameters(**of).for_graph(SIZE, TIMED)  # type: ignore[arg-type]  # by name
    assert not made.predicts_next
    assert not made.usual().learned_order
    assert made.usual().temperature == (0.1 if made.objective == "softmax" else None)


@pytest.mark.parametrize(
    ("text", "loss", "said"),
    [
        ("edge_drop = 0.1\nlayers = 3", None, "edge_drop and layers"),
        ("negative_power = 1", None, "negative_power"),
        ("", "bpr", "STREAMGCN_LOSS=bpr"),
    ],
)
def test_next_items_are_refused_beside_what_makes_the_learned_part_lightgcn(
    text: str, loss: Literal["bpr"] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"learned_order = 1 in .* contradicts {said}, with"):
        read(f"learned_order = 1\n{text}", tmp_path, loss)
    made = read(f"learned_order = 1\nlearned_weight = 0\n{text}", tmp_path)
    assert made.learned_weight == 0


@pytest.mark.parametrize("name", ["learned_order", "dampening"])
def test_what_is_on_or_off_is_0_or_1(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"{name} = 0.5 in .* is refused: it must be 0 or 1"):
        read(f"{name} = 0.5", tmp_path)


def test_the_usual_temperature_is_that_of_the_kind() -> None:
    assert NEXT.usual().temperature == 0.15
    assert LIGHT.usual().temperature == 0.1
    few = timed(blocks(n_blocks=2, users=12))
    made = fit(few, TINY).settings
    assert (made.learned_order, made.temperature) == (1.0, 0.15)


def test_a_printed_file_has_no_number_that_next_items_do_not_read(tmp_path: Path) -> None:
    made = replace(NEXT, recency=1.0).usual()
    text = written(made)
    assert not any(name in text for name in LIGHTGCN)
    again = read(text, tmp_path)
    assert again == made
    assert not again.missing()


@pytest.mark.parametrize(
    ("live", "wanted", "goes_on"),
    [
        ({}, {}, True),
        ({}, {"learned_order": 0.0}, True),
        ({}, {"learned_order": 1.0}, False),
        ({}, {"layers": 2}, False),
        ({"learned_order": 0.0}, {"recency": 0.0}, True),
        ({"learned_order": 0.0}, {"recency": 0.5}, False),
        ({"learned_order": 0.0}, {"learned_order": 0.0, "recency": 0.5}, True),
        ({"learned_order": 0.0}, {"loss": "softmax"}, True),
        ({"learned_order": 0.0, "loss": "softmax"}, {}, True),
        ({"learned_order": 0.0, "loss": "bpr"}, {}, False),
        ({"learned_order": 1.0}, {}, True),
        ({"learned_order": 1.0}, {"learned_order": 1.0}, True),
        ({"learned_order": 1.0}, {"learned_order": 0.0}, False),
        ({"learned_order": 1.0}, {"recency": 0.0}, False),
        ({"learned_order": 1.0}, {"recency": 0.5}, True),
        ({"learned_order": 1.0}, {"loss": "softmax"}, True),
        ({"learned_order": 1.0}, {"layers": 2}, True),
        ({"learned_order": 1.0}, {"dim": 64}, False),
        ({"learned_order": 1.0}, {"loss": "bpr"}, False),
    ],
)
def test_a_training_goes_on_from_the_tables_of_its_own_kind_alone(
    live: dict[str, float], wanted: dict[str, float], goes_on: bool
) -> None:
    """A manifest of an earlier version has no learned_order: it is LightGCN's."""
    was = {name: value for name, value in asdict(Hyperparameters()).items() if value is not None}
    made = replace(Hyperparameters(), **wanted)  # type: ignore[arg-type]  # by name
    made = made.for_graph(SIZE, TIMED)
    assert Learned().fits({"loss": None} | was | live, made) == goes_on


def test_next_items_try_exponents_lightgcn_fewer_steps_too_and_what_is_set_is_left_alone() -> None:
    [only] = Learned().grid(NEXT)
    assert only.names == ("learned_power",)
    assert len(only.tries) > 1
    [only] = Learned().grid(replace(NEXT, learned_power=0.3))
    assert only.tries == [(0.3,)]
    kinds, last = Learned().grid(LIGHT)
    assert "edge_drop" in kinds.names
    assert {epochs for epochs, _ in last.tries} == {None, lightgcn.EPOCHS // 3}


@pytest.mark.parametrize(("shuffled", "kind"), [(False, 1), (True, 0)])
def test_a_whole_fit_takes_the_kind_that_the_order_of_the_edges_calls_for(
    shuffled: bool, kind: int
) -> None:
    made = chain(users=240, length=40, steps=12)
    if shuffled:
        made = timed(made)
    weights = {"neighbors_weight": 0.0, "low_pass_weight": 0.0, "learned_weight": 1.0}
    fitted = fit(made, TINY.filled(weights))
    assert fitted.settings.learned_order == kind
    assert fitted.start.keys() == TABLES[kind]
    assert not fitted.settings.missing()


def retrained(folder: Path, wanted: Hyperparameters, with_times: bool = True) -> Manifest:
    """A training on a few users, from the live snapshot where that goes, that goes live."""
    snapshots = Snapshots(str(folder))
    version = snapshots.marks.live()
    live = snapshots.read(version) if version else None
    few = blocks(n_blocks=2, users=12)
    few = timed(few) if with_times else few
    made = candidate(few, wanted, snapshots, live, quiet, Watermark())
    snapshots.write(made)
    snapshots.promote(made.manifest.version)
    return made.manifest


@pytest.mark.parametrize(("with_times", "kind"), [(True, 1.0), (False, 0.0)])
def test_the_first_quick_model_is_of_the_kind_that_the_times_of_the_edges_allow(
    with_times: bool, kind: float, tmp_path: Path
) -> None:
    """Neither neighbours nor transitions are left, which alone are quick."""
    few = blocks(n_blocks=2, users=12)
    few = timed(few) if with_times else few
    wanted = replace(TINY, neighbors_weight=0.0, transitions_weight=0.0)
    made = candidate(few, wanted, Snapshots(str(tmp_path)), None, quiet, Watermark(), quick=True)
    assert made.manifest.chosen_at == 0
    assert made.manifest.settings["learned_order"] == kind
    assert made.start.keys() >= TABLES[int(kind)]


@pytest.mark.parametrize(
    ("before", "change", "kind"),
    [
        (LIGHT, {"learned_order": 1.0}, 1.0),
        (LIGHT, {"recency": 0.5}, 1.0),
        (NEXT, {"learned_order": 0.0}, 0.0),
        (NEXT, {"recency": 0.0}, 0.0),
    ],
)
def test_a_live_model_of_another_kind_than_the_one_that_is_told_leaves_no_number(
    before: Hyperparameters,
    change: dict[str, float],
    kind: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    first = replace(TINY, learned_order=before.learned_order, temperature=0.5)
    retrained(tmp_path, first)
    assert retrained(tmp_path, TINY).settings["temperature"] == 0.5
    assert caplog.text.count("from scratch") == 1
    wanted = replace(TINY, **change)  # type: ignore[arg-type]  # by name
    changed = retrained(tmp_path, wanted)
    assert caplog.text.count("from scratch") == 2
    assert changed.settings["learned_order"] == kind
    assert changed.settings["temperature"] == (0.15 if kind else 0.1)
    assert Snapshots(str(tmp_path)).start(changed).keys() == TABLES[int(kind)] | {"basis"}
    retrained(tmp_path, wanted)
    assert f"going on from {changed.version}" in caplog.text


def test_a_recency_without_a_use_does_not_have_each_training_begin_from_scratch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = replace(TINY, recency=0.5)
    first = retrained(tmp_path, wanted, with_times=False)
    assert first.settings["learned_order"] == 0
    retrained(tmp_path, wanted, with_times=False)
    assert f"going on from {first.version}" in caplog.text


def test_next_items_are_not_gone_on_from_where_the_edges_have_lost_their_times(
    tmp_path: Path,
) -> None:
    assert retrained(tmp_path, TINY).settings["learned_order"] == 1
    assert retrained(tmp_path, TINY, with_times=False).settings["learned_order"] == 0


def test_a_live_model_of_an_earlier_version_goes_on_with_lightgcn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = retrained(tmp_path, replace(TINY, learned_order=0.0, temperature=0.5))
    del first.settings["learned_order"]  # which an earlier version does not have
    Snapshots(str(tmp_path)).describe(first)
    second = retrained(tmp_path, TINY)
    assert f"going on from {first.version}" in caplog.text
    assert (second.settings["learned_order"], second.settings["temperature"]) == (0.0, 0.5)
