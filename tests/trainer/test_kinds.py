"""Which kind the learned part is of: what is set, what a file or recency tells, what is live."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from process.settings import SettingsError
from tests.graphs import blocks
from trainer.fit.fit import fit
from trainer.graph.interactions import InteractionGraph
from trainer.model import lightgcn, next_item
from trainer.model.hyperparameters import LIGHTGCN, Hyperparameters
from trainer.model.learned import Learned
from trainer.model.model_file import filled_by, written

LIGHT = Hyperparameters(learned_order=0.0)
NEXT = Hyperparameters(learned_order=1.0)
TIMED, SIZE = True, 1_000


def timed(made: InteractionGraph) -> InteractionGraph:
    made.timestamps = np.random.default_rng(1).permutation(len(made)).astype(np.int64) + 1
    return made


def read(text: str, folder: Path, **variables: str) -> Hyperparameters:
    (folder / "model.toml").write_text(text)
    return filled_by(folder / "model.toml", Hyperparameters(**variables))  # type: ignore[arg-type]


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
    assert line.startswith("edge_drop and layers and negative_power in ")
    assert "the learned part is LightGCN. The line `learned_order = 0` or" in line


@pytest.mark.parametrize(
    ("text", "predicts_next"),
    [
        ("", True),
        ("temperature = 0.2", True),
        ("layers = 2", False),
        ("edge_drop = 0.1\nlearned_order = 1", True),
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
    made = Hyperparameters(**of).for_graph(SIZE, TIMED)  # type: ignore[arg-type]
    assert not made.predicts_next
    assert not made.usual().learned_order
    assert made.usual().temperature == 0.1


@pytest.mark.parametrize("name", ["learned_order", "dampening"])
def test_what_is_on_or_off_is_0_or_1(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"{name} = 0.5 in .* is refused: it must be 0 or 1"):
        read(f"{name} = 0.5", tmp_path)


def test_the_usual_temperature_is_that_of_the_kind() -> None:
    assert NEXT.usual().temperature == 0.15
    assert LIGHT.usual().temperature == 0.1
    few = timed(blocks(n_blocks=2, users=12))
    made = fit(few, Hyperparameters(dim=4, epochs=1, vectors=4, negatives=8)).settings
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
        ({"learned_order": 1.0}, {}, True),
        ({"learned_order": 1.0}, {"learned_order": 1.0}, True),
        ({"learned_order": 1.0}, {"learned_order": 0.0}, False),
        ({"learned_order": 1.0}, {"recency": 0.0}, False),
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
    made = replace(Hyperparameters(), **wanted)  # type: ignore[arg-type]
    assert Learned().fits({"loss": None} | was | live, made) == goes_on


def test_next_items_try_exponents_and_fewer_passes_and_leave_alone_what_is_set() -> None:
    [only] = Learned().grid(NEXT)
    assert only.names == ("epochs", "learned_power")
    assert {epochs for epochs, _ in only.tries} == {None, next_item.PASSES // 3}
    [only] = Learned().grid(replace(NEXT, epochs=7, learned_power=0.3))
    assert only.tries == [(7, 0.3)]
    kinds, last = Learned().grid(LIGHT)
    assert "edge_drop" in kinds.names
    assert {epochs for epochs, _ in last.tries} == {None, lightgcn.EPOCHS // 3}
