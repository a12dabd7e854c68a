"""The last net: what nobody foresaw costs one step, and is one line."""

import logging
from types import SimpleNamespace

import pytest

from process.errors import StreamGCNError
from serving.loop import safety_net
from serving.loop.safety_net import SafetyNet

log = logging.getLogger("serving")


def fail() -> None:
    raise KeyError("unforeseen\nand more")


def test_a_step_that_fails_is_one_line_and_is_left_out_for_longer_and_longer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(safety_net, "time", SimpleNamespace(monotonic=lambda: now))
    tried, done = [], 0

    def try_it() -> None:
        tried.append(now)
        fail()

    def other() -> None:
        nonlocal done
        done += 1

    made = SafetyNet(log)
    while now < 300:
        assert not made.run("writing lists", try_it)
        assert made.run("another step", other)
        now += 0.25
    assert done == 1_200
    assert tried[:6] == [0, 0.5, 1.5, 3.5, 7.5, 15.5]
    assert tried[-1] - tried[-2] == safety_net.LONGEST_SECONDS
    [line] = caplog.messages
    assert "Writing lists failed, which is a fault of StreamGCN (KeyError: " in line
    assert f"test_safety_net.py:{fail.__code__.co_firstlineno + 1})" in line
    assert "\n" not in line


def test_a_step_that_works_again_is_run_as_before(caplog: pytest.LogCaptureFixture) -> None:
    made = SafetyNet(log)
    made.catch("step", KeyError("x"))
    assert made.paused("step")
    made._steps["step"].next_at = 0.0
    assert made.run("step", lambda: None)
    assert not made.paused("step")
    assert made.run("step", lambda: None)


def test_what_is_foreseen_is_for_the_caller() -> None:
    def refuse() -> None:
        raise StreamGCNError("Redis is away")

    with pytest.raises(StreamGCNError):
        SafetyNet(log).run("step", refuse)
