"""A reading of the edge store's new rows that can run on a thread of its own."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.edge.store import EdgeStore
from serving.edges.changes import Positions
from serving.edges.stored_edges import GrowthResult, StoredEdges


@dataclass
class Growth:
    """What is read into, and what was read.

    cut: as UnstoredChanges.cut, of the log of this number; version: of the stored edges that it
    began with; result: None until it has run.
    """

    stored: StoredEdges
    cut: dict[str, Positions]
    log: int
    version: int
    result: GrowthResult | None = None

    def run(self, store: EdgeStore) -> None:
        """Read.

        Raises:
            StoreError: the store cannot be read.
        """
        self.result = self.stored.grow(store, self.cut, self.log)
        self.stored.prepare()
