"""The list of recently popular items: for users without a list, and for those who have no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from serving.edges.edge import Edges
from serving.lists.encoding import Lists, encode, quoted
from trainer.graph.arrays import Float32s, Int64s


class PopularList:
    """Popular items as of a moment, more of them than a list has."""

    def __init__(
        self,
        items: Sequence[str] = (),
        counts: Float32s | None = None,
        model: str = "",
        counted_at: int = 0,
    ) -> None:
        """`counts`: float32 [items]; `model`: version; `counted_at`: epoch milliseconds."""
        self.items = list(items)
        self._counts = np.empty(0, np.float32) if counts is None else counts
        self._model = model
        self._counted_at = counted_at
        self._quoted = quoted(pa.array(self.items, pa.string()))

    def first(self, k: int) -> bytes:
        """The value for users without a list: the k first items."""
        [value] = self.without([{}], k, np.array([self._counted_at]), self._counted_at)
        return value

    def without(
        self, owned: Sequence[Edges], k: int, event_at: Int64s, updated_at: int
    ) -> list[bytes]:
        """For each user the value of the k first items to which the user has no edge.

        Args:
            owned: the users' edges.
            event_at: int64 [users], epoch milliseconds.
            updated_at: epoch milliseconds.
        """
        width = min(k, len(self.items))
        numbers = np.zeros((len(owned), width), np.int64)
        counts = np.zeros(len(owned), np.int64)
        for row, edges in enumerate(owned):
            kept = [n for n, item in enumerate(self.items) if item not in edges][:width]
            numbers[row, : len(kept)] = kept
            counts[row] = len(kept)
        lists = Lists(numbers, self._counts[numbers], numbers[:, :0], counts, event_at)
        return encode(lists, self._quoted, self._model, ["popular"] * len(owned), updated_at)
