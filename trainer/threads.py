"""Work on the parts of a whole, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

MOST = 4  # parts at a time: each needs memory of its own

A = TypeVar("A")
B = TypeVar("B")


def on_threads(function: Callable[[A], B], parts: Iterable[A]) -> Generator[B, None, None]:
    """What a function returns for each part, in the order of the parts.

    On as many threads as torch has, but not on more than MOST. A result waits in memory until the
    caller takes it.

    Raises:
        Whatever the function raises; parts that were not begun are left out then.
    """
    threads = min(MOST, torch.get_num_threads())
    if threads == 1:
        yield from map(function, parts)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(function, parts)
    finally:
        pool.shutdown(cancel_futures=True)
