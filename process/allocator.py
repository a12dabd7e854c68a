"""Makes a process that holds a share of what it reads give freed memory back to the system.

Arrow's own allocator keeps what Arrow's threads have freed: after a million rows were read and ten
thousand of them kept, 70 MB. glibc keeps a heap for each of several threads and gives back little
of any but the first. With one heap, which is the C library's, `malloc_trim` gives back nearly all.

Torch's oneDNN compiles code for each size of matrices that it multiplies in half precision, and
keeps the code of the last 1,024 sizes in each of two caches: 860 MB after 1,600 sizes.
"""

from __future__ import annotations

import ctypes
import os

ARROW = "ARROW_DEFAULT_MEMORY_POOL"  # which Arrow reads once, when it is imported
M_ARENA_MAX = -8  # of glibc's malloc.h
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # which torch reads once
SIZES = "32"  # of matrices, in each cache; serving has a dozen (serving/lists/topk.py)


def limit_memory() -> None:
    """From now on; to be called before Arrow and torch are imported and threads are started.

    Where the C library is not glibc, the heap stays as it is. What an operator has chosen stays.
    """
    os.environ.setdefault(ARROW, "system")
    for cache in CACHES:
        os.environ.setdefault(cache, SIZES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(M_ARENA_MAX, 1)
