"""What is away is asked again with waits that grow, until it answers or the process ends."""

import logging
import threading
from types import SimpleNamespace

import pytest

from process.outage import Outage
from process.retry import until_it_works
from process.shutdown import Stopped


class Stop(threading.Event):
    """Does not wait, and keeps how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def away(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


def outage() -> Outage:
    return Outage(logging.getLogger("test"), "Kafka is away", "Kafka is back")


def test_the_result_comes_once_it_works_after_waits_that_grow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = iter((10.0, 75.0))  # the first failure and the success
    monkeypatch.setattr("process.outage.time", SimpleNamespace(monotonic=lambda: next(now)))
    stop, tries = Stop(), iter(range(7))

    def act() -> str:
        if next(tries) < 6:
            raise ConnectionError("refused")
        return "an answer"

    assert until_it_works(act, away, outage(), stop, "Kafka") == "an answer"
    assert len(stop.waits) == 1 + 6
    for wait, most in zip(stop.waits[1:], (0.2, 0.4, 0.8, 1.6, 3.2, 6.4), strict=True):
        assert most / 2 <= wait <= most
    assert caplog.messages == ["Kafka is away (refused); trying until it works.",
                               "Kafka is back (away for 65 s)."]  # fmt: skip


def test_an_error_that_waiting_does_not_heal_is_raised_at_once() -> None:
    stop = Stop()

    def act() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        until_it_works(act, away, outage(), stop, "Kafka")
    assert stop.waits == [0.0]


def test_who_is_told_to_stop_does_not_try_again() -> None:
    stop, tries = Stop(), []

    def act() -> None:
        tries.append(1)
        stop.set()
        raise ConnectionError("refused")

    with pytest.raises(Stopped, match="waiting for Kafka"):
        until_it_works(act, away, outage(), stop, "Kafka")
    with pytest.raises(Stopped):
        until_it_works(act, away, outage(), stop, "Kafka")
    assert len(tries) == 1
