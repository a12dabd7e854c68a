import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from process import log
from streamgcn.embedded import free_port


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


def test_the_figures_are_gauges_and_health_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    figures = log.Figures("serving", port)
    figures.report("served", rate="12/s", model="none", **{"recall@20": 0.25})

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return str(answer.read(), "utf8")

    assert "streamgcn_serving_rate 12.0" in get("/metrics")
    assert "streamgcn_serving_recall_at_20 0.25" in get("/metrics")
    assert get("/healthz") == "ok\n"
    monkeypatch.setattr(log, "HEALTHY_FOR", -1.0)
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        get("/healthz")
    refused.value.close()
