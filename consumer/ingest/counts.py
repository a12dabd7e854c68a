"""How many users and items the edge store holds, for the log: within 0.3 %, in 256 kB."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasketches import hll_sketch

from consumer.edge.store import EdgeStore

LOG2_BUCKETS = 17  # 2^17 of one byte; exact up to some 12,000 ids, standard error 0.2 % beyond


class Counts:
    """Grows with the store, whoever writes it, so that replicas say the same."""

    def __init__(self) -> None:
        self._users, self._items = hll_sketch(LOG2_BUCKETS), hll_sketch(LOG2_BUCKETS)
        self._watermark: dict[int, int] = {}

    @property
    def users(self) -> int:
        """Distinct users counted so far."""
        return int(self._users.get_estimate() + 0.5)

    @property
    def items(self) -> int:
        """Distinct items counted so far."""
        return int(self._items.get_estimate() + 0.5)

    def grow(self, store: EdgeStore) -> None:
        """Count the rows that are new since the last call.

        Raises:
            StoreError: the store cannot be read; what was counted stays.
        """
        after = dict(self._watermark)
        for batch in store.ids_since(self._watermark):
            alive = batch.filter(pc.not_equal(batch["item_id"], ""))  # not those who are forgotten
            _count(self._users, alive["user_id"])
            _count(self._items, alive["item_id"])
            partitions = batch["kafka_partition"].to_numpy()
            offsets = batch["kafka_offset"].to_numpy()
            for partition in np.unique(partitions).tolist():
                newest = int(offsets[partitions == partition].max())
                after[partition] = max(after.get(partition, 0), newest + 1)
        self._watermark = after


def _count(sketch: hll_sketch, ids: pa.Array) -> None:
    for each in ids.unique().to_pylist():
        sketch.update(each)
