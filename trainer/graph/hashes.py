"""Hashes of ids: who has a user, and in which order users are taken, say these and no arrival."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa

from trainer.graph.arrays import Int64s, UInt32s
from trainer.graph.keys import hashed

BLOCK = 1_000_000  # ids that are Python's strings at a time


def hashes_of(ids: pa.Array) -> UInt32s:
    """Numbers that look random, the same for the same id on all machines; uint32 [ids].

    The checksums of ids that are alike are alike, so they are mixed. A million take half a second.
    """
    sums: Int64s = np.empty(len(ids), np.int64)
    for begin in range(0, len(ids), BLOCK):
        block = ids[begin : begin + BLOCK].to_pylist()
        sums[begin : begin + BLOCK] = [zlib.crc32(each.encode()) for each in block]
    return (hashed(sums) >> np.uint64(32)).astype(np.uint32)
