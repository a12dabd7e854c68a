import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from process import log
from process.metrics import Metric


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


def test_the_figures_become_metrics_by_the_conventions_of_prometheus() -> None:
    declared = (
        Metric("events", "counter", "events", "Events."),
        Metric("lag", "gauge", "lag_messages", "Lag."),
        Metric("model", "text", "model_info", "Model."),
        Metric("commit", "histogram", "commit_seconds", "Commits."),
        Metric("trainings", "counter", "trainings", "Trainings.", ("live", "failed")),
    )
    figures = log.Figures("serving", declared)
    figures.report("served", events=5, lag=7, model="none", rate="12/s")
    figures.report("served", events=12, lag=0, model="v1")
    figures.metrics.observe("commit", [0.02, 0.3])
    figures.metrics.count("trainings", "failed")
    page = generate_latest(figures.metrics.registry).decode().splitlines()
    assert "streamgcn_serving_events_total 12.0" in page
    assert "streamgcn_serving_lag_messages 0.0" in page
    assert [line for line in page if line.startswith("streamgcn_serving_model_info")] == [
        'streamgcn_serving_model_info{model="v1"} 1.0'
    ]
    assert 'streamgcn_serving_commit_seconds_bucket{le="0.025"} 1.0' in page
    assert "streamgcn_serving_commit_seconds_count 2.0" in page
    assert 'streamgcn_serving_trainings_total{outcome="failed"} 1.0' in page
    assert 'streamgcn_serving_trainings_total{outcome="live"} 0.0' in page
    assert any(line.startswith("streamgcn_build_info{") for line in page)
    assert not any("rate" in line for line in page)
