"""What is set and changes nothing is said; and what is said to change nothing changes nothing."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from consumer.edge.store import Watermark
from tests.graphs import blocks, timed
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.snapshots import Snapshots
from trainer.model import blend
from trainer.model.hyperparameters import SETTINGS, Hyperparameters
from trainer.model.model_file import written
from trainer.model.progress import quiet
from trainer.model.setting import Setting
from trainer.settings import TrainerSettings

FEW = blocks(n_blocks=2, users=12)
TIMED = timed(blocks(n_blocks=2, users=12))
TINY = Hyperparameters(dim=4, epochs=2, vectors=4, negatives=8)
GCNS: tuple[dict[str, str], ...] = ({}, {"loss": "softmax"}, {"loss": "bpr"})
MODELS: list[Any] = [
    {},
    {"learned_order": 1.0},
    {"learned_order": 0.0},
    {"loss": "bpr"},
    {"learned_weight": 0.0},
    {"neighbors_weight": 0.0, "transitions_weight": 0.0},
    {"model": "lightgcn"},
    {"model": "lightgcn", "loss": "bpr"},
    *(pytest.param({"model": "gcn"} | of, marks=pytest.mark.long) for of in GCNS),
]


def settings_of(
    text: str, variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Hyperparameters:
    """The settings of a process with a file of numbers."""
    (folder / "model.toml").write_text(text)
    monkeypatch.setenv("STREAMGCN_MODEL_FILE", str(folder / "model.toml"))
    for name, value in variables.items():
        monkeypatch.setenv(f"STREAMGCN_{name}", value)
    return TrainerSettings.load().hyperparameters()


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        (
            "temperature = 0.2\nnegatives = 9\ndim = 8",
            {"LOSS": "bpr"},
            "negatives and temperature, as the loss is bpr",
        ),
        (
            "neighbors_weight = 1\nvectors = 9\ntransitions_reach = 5\nlayers = 2",
            {"MODEL": "gcn"},
            "neighbors_weight and transitions_reach and vectors, as STREAMGCN_MODEL is gcn",
        ),
        (
            "recency = 0.5\ntemperature = 0.2",
            {"MODEL": "gcn", "EDGE_WEIGHT": "log"},
            "dampening (STREAMGCN_EDGE_WEIGHT=log) and temperature, as the loss is mse; "
            "recency, as STREAMGCN_MODEL is gcn",
        ),
        (
            "learned_weight = 2\nneighbors_weight = 1\nlearned_order = 1\nrecency = 0.5",
            {"MODEL": "lightgcn"},
            "learned_order and learned_weight and neighbors_weight, as STREAMGCN_MODEL is lightgcn",
        ),
        (
            "learned_weight = 0\ndim = 8\nlearned_order = 1\nedge_drop = 0.1",
            {"EPOCHS": "9", "LOSS": "softmax"},
            "dim and edge_drop and STREAMGCN_EPOCHS and learned_order and STREAMGCN_LOSS, as "
            "learned_weight is 0",
        ),
        (
            "neighbors_weight = 0\ntransitions_weight = 0\nneighbors_kept = 9",
            {},
            "neighbors_kept, as neighbors_weight is 0 and transitions_weight is 0",
        ),
        ("learned_weight = 0\nlearned_order = 0", {"MODEL": "gcn"}, ""),
        ("learned_order = 1\ntemperature = 0.2\nnegatives = 9\nrecency = 0", {}, ""),
        ("layers = 2\nedge_drop = 0.2\nlearned_order = 0", {"EPOCHS": "9"}, ""),
        ("recency = 0.5\nlayers = 2\nedge_drop = 0.2", {"MODEL": "lightgcn"}, ""),
        ("temperature = 0.2\nlayers = 2\ndampening = 1", {"MODEL": "gcn", "LOSS": "softmax"}, ""),
    ],
)
def test_what_is_set_and_read_by_no_part_is_said_in_one_line(
    text: str,
    variables: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings_of(text, variables, tmp_path, monkeypatch)
    wanted = [f"These settings change nothing: {said}."] if said else []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == wanted


@pytest.mark.parametrize(
    ("graph", "text", "said"),
    [
        (FEW, "recency = 1.5\ntransitions_weight = 2", "recency and transitions_weight"),
        (FEW, "transitions_decay = 0.3\nneighbors_kept = 9", "transitions_decay"),
        (FEW, "recency = 0\ntransitions_weight = 0", ""),
        (TIMED, "recency = 1.5\ntransitions_weight = 2", ""),
    ],
)
def test_what_edges_without_times_leave_without_effect_is_said_when_a_model_is_trained(
    graph: InteractionGraph,
    text: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = f"{text}\ndim = 4\nvectors = 4\nlearned_weight = 0"
    settings = settings_of(text, {}, tmp_path, monkeypatch)
    caplog.clear()
    snapshots = Snapshots(str(tmp_path / "models"))
    candidate(graph, settings, snapshots, None, quiet, Watermark(), quick=True)
    why = "as the edges have no times that tell their order"
    wanted = [f"These settings change nothing: {said}, {why}."] if said else []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == wanted


@pytest.mark.parametrize("of", MODELS)
@pytest.mark.parametrize("graph", [FEW, TIMED])
def test_the_file_that_evaluate_prints_is_read_as_a_whole(
    graph: InteractionGraph,
    of: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = replace(TINY, **of).for_graph(len(graph), bool(graph.timed.any())).usual()
    variables = {name.upper(): of[name] for name in ("model", "loss") if name in of}
    again = settings_of(written(made), variables, tmp_path, monkeypatch)
    assert not caplog.messages
    assert not again.missing()


@pytest.mark.parametrize("of", MODELS)
@pytest.mark.parametrize("graph", [FEW, TIMED])
def test_what_is_said_to_change_nothing_changes_nothing(
    graph: InteractionGraph, of: dict[str, Any]
) -> None:
    has_times = bool(graph.timed.any())
    settings = replace(TINY, **of)

    def tensors(given: Hyperparameters) -> dict[str, torch.Tensor]:
        made = given.for_graph(len(graph), has_times).usual()
        on = graph.dampened(bool(made.dampening))
        return blend.blend(on, blend.fit(on, made), made).tensors

    changes: dict[str, Any] = {}
    for name in settings.unread(has_times).keys() - {"loss"}:
        about = SETTINGS.get(name, Setting("epochs", whole=True))
        changes[name] = 3 if about.whole else 1.0 if about.switch else 0.37
    before, after = tensors(settings), tensors(replace(settings, **changes))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
