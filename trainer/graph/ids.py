"""Ids of users or items -> node numbers, which never change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.arrays import Int32s, Int64s, UInt32s
from trainer.graph.hashes import hashes_of


class Ids:
    """Node numbers 0.. in the order in which the ids were first seen."""

    def __init__(self, ids: pa.Array | None = None) -> None:
        self.values: pa.Array = pa.array([], pa.string()) if ids is None else ids
        self._hashes: UInt32s = np.empty(0, np.uint32)  # of the first ids
        self._by_hash: Int32s | None = None

    def __len__(self) -> int:
        return len(self.values)

    def grow(self, ids: pa.ChunkedArray) -> Int32s:
        """Numbers of `ids`, new ones appended. Returns int32 [len(ids)]."""
        coded = ids.cast(pa.string()).combine_chunks().dictionary_encode()
        known = pc.index_in(coded.dictionary, value_set=self.values)
        new = coded.dictionary.filter(pc.is_null(known))
        numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers[np.isnan(numbers)] = len(self.values) + np.arange(len(new))
        if len(new):
            self._by_hash = None
        self.values = pa.concat_arrays([self.values, new])
        grown: Int32s = numbers.astype(np.int32)[coded.indices.to_numpy()]
        return grown

    @property
    def hashes(self) -> UInt32s:
        """Of each id, as `hashes_of` has them, uint32 [ids]; no longer of one that was blanked."""
        known = self._hashes
        if len(known) < len(self):
            known = np.concatenate([known, hashes_of(self.values[len(known) :])])
            self._hashes = known
        return known

    @property
    def by_hash(self) -> Int32s:
        """Numbers of the ids that are not blank, by their hashes, equal ones as they were first
        seen; int32 [ids that are not blank].

        The order in which ids came is not in it: several ranks, who each have the ids of a range
        of hashes, have the same order one after another as a process that has all ids.
        """
        made, hashes = self._by_hash, self.hashes
        if made is None:
            there = pc.not_equal(self.values, "").to_numpy(zero_copy_only=False)
            made = np.argsort(hashes, kind="stable").astype(np.int32)
            made = made[there[made]]
            self._by_hash = made
        return made

    def blank(self, numbers: list[int]) -> None:
        """Put the empty string, which is nobody's id, for the ids of these nodes."""
        self._by_hash = None
        self._hashes[[n for n in numbers if n < len(self._hashes)]] = 0
        gone = np.zeros(len(self.values), np.bool_)
        gone[numbers] = True
        self.values = pc.if_else(pa.array(gone), "", self.values)


def in_arrays(ids: pa.Array) -> tuple[Int64s, npt.NDArray[np.uint8]]:
    """Ids as they travel: the length of each in bytes, int64 [ids], and all bytes."""
    _, places, content = ids.buffers()
    if not len(ids) or content is None:
        return np.zeros(len(ids), np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(places, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    return np.diff(ends).astype(np.int64), np.frombuffer(content, np.uint8)[ends[0] : ends[-1]]


def from_arrays(lengths: Int64s, content: npt.NDArray[np.uint8]) -> pa.Array:
    """The ids that were given as `in_arrays` gives them.

    Raises:
        ValueError: together they are longer than an array of Arrow's can be.
    """
    if lengths.sum() >= 2**31:
        raise ValueError(f"{len(lengths)} ids have {lengths.sum()} bytes, more than 2 GiB")
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths).astype(np.int32)])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(content))]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)
