"""Ids of users or items -> node numbers, which never change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.arrays import Int32s, Int64s


class Ids:
    """Node numbers 0.. in the order in which the ids were first seen."""

    def __init__(self, ids: pa.Array | None = None) -> None:
        self.values: pa.Array = pa.array([], pa.string()) if ids is None else ids

    def __len__(self) -> int:
        return len(self.values)

    def grow(self, ids: pa.ChunkedArray) -> Int32s:
        """Numbers of `ids`, new ones appended. Returns int32 [len(ids)]."""
        coded = ids.cast(pa.string()).combine_chunks().dictionary_encode()
        known = pc.index_in(coded.dictionary, value_set=self.values)
        new = coded.dictionary.filter(pc.is_null(known))
        numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers[np.isnan(numbers)] = len(self.values) + np.arange(len(new))
        self.values = pa.concat_arrays([self.values, new])
        grown: Int32s = numbers.astype(np.int32)[coded.indices.to_numpy()]
        return grown

    def blank(self, numbers: list[int]) -> None:
        """Put the empty string, which is nobody's id, for the ids of these nodes."""
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
