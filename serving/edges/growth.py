"""A reading of the edge store's new rows that can run on a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consumer.edge.store import EdgeStore
from serving.edges.changes import Positions
from serving.edges.stored_edges import GrowthResult, StoredEdges


@dataclass
class Growth:
    """What is read into, and what was read.

    cut: as UnstoredChanges.cut, of the log of this number; wanted, missing: as in UnstoredChanges;
    version: of the stored edges that it began with; result: None until it has run.
    """

    stored: StoredEdges
    cut: dict[str, Positions]
    log: int
    wanted: set[str]
    missing: set[str]
    version: int
    result: GrowthResult | None = None

    def steps(self, store: EdgeStore) -> Iterator[None]:
        """Read, a window at each step.

        Raises:
            StoreError: the store cannot be read.
        """
        self.result = yield from self.stored.grow(store, self.cut, self.log, self.wanted)

    def run(self, store: EdgeStore) -> None:
        """Read.

        Raises:
            StoreError: the store cannot be read.
        """
        for _ in self.steps(store):
            pass
        self.stored.prepare()
