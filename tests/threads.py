"""Threads of the tests: an error on one fails the test, and no test waits for one without end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from tests.services import PATIENCE

T = TypeVar("T")


def begun(work: Callable[..., T], *arguments: object) -> Future[T]:
    """Begin `work` on a thread of its own; `result(PATIENCE)` waits for what it returns or raises.

    The thread holds up the end of this process no more than the test: if it hangs, it is left.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work(*arguments))
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return ended


def at_once(*works: Callable[[], object]) -> None:
    """Do all of it at the same moment, each on a thread of its own, and wait for the ends."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait(PATIENCE)
        work()

    for each in [begun(run, work) for work in works]:
        each.result(PATIENCE)


def threads(name: str = "") -> set[threading.Thread]:
    """The threads that run now and whose names begin so.

    A test compares those before with those after: threads of earlier tests may end at any time, so
    a number of threads tells nothing.
    """
    return {each for each in threading.enumerate() if each.name.startswith(name)}


@contextmanager
def running(room: Callable[[threading.Event], object]) -> Iterator[Future[object]]:
    """Run a room's loop on a thread while inside; the event tells the loop to stop.

    Yields:
        What is done when the loop has ended, be it too early.
    """
    stop = threading.Event()
    ended = begun(room, stop)
    try:
        yield ended
    finally:
        stop.set()
        wait([ended], PATIENCE)
    assert ended.done(), "the loop did not end"
    ended.result()
