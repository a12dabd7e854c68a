"""Heartbeats to the consumer group while the loop is busy for long.

A group drops a member whose client was not polled for six seconds after the others have joined or
left. To read a million rows of the edge store takes longer on a busy machine. Each member that is
dropped moves partitions to others, who then read the edge store too: so several processes were
seen to move partitions for ten minutes, with no end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from consumer.kafka.reading import Reader

HEARTBEAT_EVERY = 0.5  # seconds


@contextmanager
def heartbeats(reader: Reader) -> Iterator[None]:
    """Send them on a thread of their own; nobody else may use the reader meanwhile.

    Raises:
        StreamGCNError: what a heartbeat raised, at the end.
    """
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_EVERY):
            reader.heartbeat()

    with ThreadPoolExecutor(1, "heartbeat") as thread:
        beats = thread.submit(beat)
        try:
            yield
        finally:
            over.set()
    beats.result()
