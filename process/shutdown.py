"""How a process is told to stop, and how it ends in time whatever its threads still do.

A signal is heard on a thread of its own: the main thread may be inside a library for minutes, and
Python runs a signal's handler on the main thread alone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 8.0  # from the wish to stop to the end


class Stopped(Exception):
    """The process was told to stop; the text is what it did, such as "waiting for Kafka"."""


def stop_on_signals() -> threading.Event:
    """An event that SIGINT, SIGTERM and SIGHUP set; not SIGHUP under nohup, which ignores it."""
    stop = threading.Event()
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())

    def listen(_: socket.socket = told) -> None:  # which is closed with its last reference
        while True:
            if heard.recv(1)[0] in SIGNALS:
                stop.set()

    threading.Thread(target=listen, name="signals", daemon=True).start()
    return stop


@contextmanager
def ending_in_time(
    stop: threading.Event, log: logging.Logger, doing: Callable[[], str]
) -> Iterator[None]:
    """End the process `GRACE_SECONDS` after `stop` is set, or after the inside has ended.

    A process that ends by itself before never notices. One that hangs in a library, or has a thread
    that does not end, ends as after SIGKILL, which loses nothing that was stored or acknowledged.

    Args:
        doing: what the process is busy with, for the log; may be empty.
    """
    code = 0

    def end() -> None:
        stop.wait()
        time.sleep(GRACE_SECONDS)
        busy = doing()
        log.warning(
            "The process did not stop within %.0f s%s; ending it at once.",
            GRACE_SECONDS, f" (busy with {busy})" if busy else "",
        )  # fmt: skip
        os._exit(code)

    threading.Thread(target=end, name="ending", daemon=True).start()
    try:
        yield
    except BaseException:
        code = 1
        raise
    finally:
        stop.set()
