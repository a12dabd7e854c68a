"""Ids of users or items -> node numbers, which never change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.arrays import Int32s


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
