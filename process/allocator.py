"""One heap for a process, which gives back what is free.

Arrow's own allocator keeps what Arrow's threads have freed: after a million rows were read and ten
thousand of them kept, 70 MB. glibc keeps a heap for each of several threads and gives back little
of any but the first. With one heap, which is the C library's, `malloc_trim` gives back nearly all.
"""

from __future__ import annotations

import ctypes
import os

ARROW = "ARROW_DEFAULT_MEMORY_POOL"  # which Arrow reads once, when it is imported
M_ARENA_MAX = -8  # of glibc's malloc.h


def use_one_heap() -> None:
    """From now on; to be called before Arrow is imported and threads are started.

    Where the C library is not glibc, Arrow's part alone is done. What an operator has chosen stays.
    """
    os.environ.setdefault(ARROW, "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(M_ARENA_MAX, 1)
