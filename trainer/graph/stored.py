"""The graph as far as the edge store was read: it grows, loses old edges, and begins anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from consumer.edge.retention import Retention
from consumer.edge.store import (
    EdgeStore,
    Replaced,
    StoreError,
    StoreMissing,
    StoreRefused,
    Watermark,
)
from process.outage import Outage
from trainer.graph.growth import grow
from trainer.graph.interactions import InteractionGraph
from trainer.graph.numbering import agree
from trainer.graph.weights import Weighing
from trainer.ranks import ALONE, Ranks

log = logging.getLogger("trainer")


class StoredGraph:
    """The graph of one edge store.

    graph, watermark: the edges, and up to where of the store they were read. forgotten: digest of
    a user -> when the store took note of the forget, epoch microseconds; whoever has taken these
    users out elsewhere clears it.
    """

    def __init__(
        self,
        edge_store: str,
        topic: str,
        weighing: Weighing,
        retention_days: float | None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Nothing is read or opened yet."""
        self.graph = InteractionGraph(weighing=weighing, ranks=ranks)
        self.watermark = Watermark()
        self._agreed = 0  # items whose numbers are those of all ranks
        self.forgotten: dict[str, int] = {}
        self._place, self._topic = edge_store, topic
        self._store: EdgeStore | None = None
        self._answered = False  # whether the place was ever open to this process
        self._retention = Retention(retention_days)
        self._away = Outage(log, "The edge store cannot be read", "The edge store is back")

    @property
    def trouble(self) -> str:
        """Why the edge store cannot be read, or nothing."""
        return self._away.trouble

    def read(self) -> Iterator[int]:
        """Grow the graph by the rows that are new; gives the number of events of each step.

        Raises:
            SettingsError: the edge store is not of this topic, or an object store that has never
                let this process in does not let it in now.
        """
        try:
            self._store = self._store or EdgeStore(self._place, self._topic)
            if self._store.changed(self.watermark):
                for step in grow(self.graph, self._store, self.watermark):
                    for user, notice in step.notices.items():
                        self.forgotten[user] = max(notice.stamp, self.forgotten.get(user, 0))
                    self.watermark = step.watermark
                    yield step.new
        except Replaced as error:
            log.warning("%s; the whole edge store is read again.", error)
            self.graph = InteractionGraph(weighing=self.graph.weighing, ranks=self.graph.ranks)
            self.watermark, self._agreed = Watermark(), 0
            return
        except StoreError as error:
            if isinstance(error, StoreRefused) and not self._answered:
                raise
            self._answered |= isinstance(error, StoreMissing)
            self._away.failed(error)
            return
        self._answered = True
        self._away.worked()

    def is_behind(self) -> bool:
        """Whether this rank has read less of the edge store than the first one, or another one."""
        said = f"{self.watermark.table} {self.watermark.version}".encode()
        table, version = self.graph.ranks.said(said).decode().rsplit(" ", 1)
        return self.watermark.table != table or self.watermark.version < int(version)

    def agree(self) -> None:
        """Where several ranks train: give items the same numbers on all of them, and strengths the
        same moment."""
        ranks = self.graph.ranks
        if ranks.several:
            self._agreed = agree(self.graph, self._agreed)
            self.graph.as_of(ranks.most(int(self.graph.timestamps.max(initial=0))))

    def expire(self) -> int:
        """Take out the edges that are too old; returns how many."""
        oldest = self._retention.due()
        if oldest is None:
            return 0
        before = len(self.graph)
        self.graph.expire(oldest)
        return before - len(self.graph)
