import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from process import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


def test_a_line_has_time_level_process_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.Figures("consumer").report("ingested", events=48211, rate="4821/s")
    line = capsys.readouterr().err.strip()
    time, rest = line.split(" ", 1)
    assert len(time) == len("2026-11-23T22:31:04Z")
    assert time.endswith("Z")
    assert rest == "INFO consumer ingested events=48211 rate=4821/s"


def test_json_lines_hold_the_figures_as_values(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.Figures("trainer").report("trained", users=3, loss=0.5)
    line = json.loads(capsys.readouterr().err)
    assert (line["process"], line["level"], line["message"]) == (
        "trainer",
        "INFO",
        "trained users=3 loss=0.5",
    )
    assert (line["users"], line["loss"]) == (3, 0.5)


def test_the_figures_are_gauges_under_the_same_names() -> None:
    figures = log.Figures("serving")
    figures.report("served", rate="12/s", model="none", loss=-1e-5, **{"recall@20": 0.25})
    page = generate_latest(figures.registry).decode()
    assert "streamgcn_serving_rate 12.0" in page
    assert "streamgcn_serving_recall_at_20 0.25" in page
    assert "streamgcn_serving_loss -1e-05" in page
    assert "model" not in page
