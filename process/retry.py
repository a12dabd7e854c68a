"""Trying again until something works: the one way to wait for what is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from process.outage import Outage
from process.shutdown import Stopped

Result = TypeVar("Result")


def until_it_works(
    act: Callable[[], Result],
    heals: Callable[[BaseException], bool],
    outage: Outage,
    stop: threading.Event,
    what: str,
) -> Result:
    """What `act` returns, tried again with longer and longer waits while it fails.

    Args:
        heals: whether waiting can heal an error; one that it cannot heal is raised.
        outage: says what is away and back, and how long to wait.
        what: is waited for, such as "the edge store".

    Raises:
        Stopped: told to stop before it worked.
    """

    def seconds(state: RetryCallState) -> float:
        return outage.failed(state.outcome.exception() if state.outcome else "")

    def sleep(wait: float) -> None:
        if stop.wait(wait):
            raise Stopped(f"waiting for {what}")

    sleep(0.0)
    result = Retrying(retry=retry_if_exception(heals), wait=seconds, sleep=sleep)(act)
    outage.worked()
    return result
