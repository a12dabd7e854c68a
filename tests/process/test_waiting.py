"""What the log says of something that is away, and how long a process waits for it."""

import logging
from types import SimpleNamespace

import pytest

from process.outage import Outage


def outage() -> Outage:
    return Outage(logging.getLogger("test"), "The store is away", "The store is back", limit=8.0)


def test_an_outage_is_one_line_for_each_cause_and_one_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = iter((10.0, 75.0, 80.0))  # the first failure, the success, the next failure
    monkeypatch.setattr("process.outage.time", SimpleNamespace(monotonic=lambda: next(now)))
    state = outage()
    state.worked()  # nothing was wrong
    for cause in ("full", "full", "read-only", "full"):
        state.failed(cause)
    assert state.lasts
    state.worked()
    state.worked()
    state.failed("full")
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "The store is away (full); trying until it works."),
        ("WARNING", "The store is away (read-only); trying until it works."),
        ("INFO", "The store is back (away for 65 s)."),
        ("WARNING", "The store is away (full); trying until it works."),
    ]


def test_a_text_that_counts_is_one_cause_and_texts_without_end_are_not_all_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = outage()
    for number in range(100):
        state.failed(f"try {number} timed out")
    assert len(caplog.records) == 1
    for number in range(100):
        state.failed("x" * number)
    assert len(caplog.records) == 20


def test_the_wait_doubles_to_its_limit_and_begins_anew_after_a_success() -> None:
    state = outage()
    waits = [state.failed("away") for _ in range(2_000)]
    for wait, most in zip(waits, (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0, 8.0), strict=False):
        assert most / 2 <= wait <= most
    assert 4.0 <= min(waits[6:]) < max(waits[6:]) <= 8.0
    state.worked()
    assert state.failed("away") <= 0.2
