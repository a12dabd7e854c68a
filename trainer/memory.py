"""What a training has freed goes back to the system; the allocator would keep most of it."""

from __future__ import annotations

import ctypes
import gc

import pyarrow as pa


def give_back() -> None:
    """Return free memory, where the C library is glibc; elsewhere only Arrow's."""
    gc.collect()
    trim()


def trim() -> None:
    """The same without looking for garbage, so that other threads hardly wait for it."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
