"""When all lists are written: for a new snapshot, for new items, after Redis has lost them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from serving.edges.user_edges import UserEdges
from serving.lists.ranking import Recommender
from serving.loop.list_blocks import Block, Publish, describe
from serving.redis.contract import Recommendations
from serving.redis.store import Store

RENEW_AFTER = 5.0  # seconds from the end of a publish to the next one for new items' sake,
RENEW_TIMES = 2.0  # and this many times as long as the last one took


class Publication:
    """The publishes of this process, one after another.

    A partition's lists are as they should be if its mark is that of the snapshot, of Redis's
    present life and of the settings. What the marks say is asked once, as nobody else writes the
    lists of a partition that is read here: an evicting Redis may lose the mark.
    """

    def __init__(self, store: Store, log: logging.Logger) -> None:
        self._store, self._log = store, log
        self._marks: dict[int, str] = {}  # of partitions, as far as they are known
        self._renew: set[int] = set()  # partitions whose lists lack new items
        self._publish: Publish | None = None
        self._renewing = False  # the publish is for new items' sake alone
        self._share = 0.0
        self._began = self._ended = 0.0  # of the last publish

    @property
    def running(self) -> bool:
        """Whether there is more to be written."""
        return self._publish is not None

    @property
    def renewing(self) -> bool:
        """Whether what runs is for new items' sake alone."""
        return self._renewing

    @property
    def share(self) -> float:
        """Of the last publish that is written."""
        return self._publish.share if self._publish else self._share

    @property
    def careful(self) -> bool:
        """Whether the next lists are made one at a time, as one of them failed."""
        return self._publish is not None and self._publish.careful

    def renew(self, partitions: set[int]) -> None:
        """New items can be recommended to the users of these partitions."""
        self._renew |= partitions

    def drop(self) -> None:
        """The partitions read here have changed: what runs may be another process's to write."""
        if self._publish and self._renewing:
            self._renew |= self._publish.partitions
        self._publish = None
        self._marks.clear()

    def start_over(self) -> None:
        """There is a new snapshot without new items, or Redis has lost what was written."""
        self._publish = None
        self._renew.clear()
        self._marks.clear()

    def see_to(
        self, recommender: Recommender, edges: UserEdges, mine: set[int], of: int, mark: str
    ) -> None:
        """Begin a publish if one is due and none runs.

        Args:
            mine: the topic's partitions that are read here, `of` so many.

        Raises:
            RedisDown: nothing is begun.
        """
        if self._publish or not mine or not of:
            return
        missing = self._missing(mine, mark)
        if missing:
            numbers = sorted(missing)
            self._log.info(
                "Publishing snapshot %s to the users of partitions %s.",
                recommender.version,
                numbers,
            )
        elif self._renew & mine and self._renewal_due():
            self._log.info("Publishing snapshot %s with the new items since.", recommender.version)
        else:
            return
        self._renewing = not missing
        partitions = missing or self._renew & mine
        self._publish = Publish(recommender, edges, partitions, of, mark)
        self._renew -= partitions
        self._began = time.monotonic()

    def begin(self, popular: Recommendations, due: Callable[[int], list[str]]) -> Block | None:
        """The next block of what runs; None if it is done, which is noted in Redis and the log.

        Raises:
            RedisDown: it is not done, and is to be called again.
        """
        if not self._publish:
            return None
        block = self._publish.begin(popular, due)
        if not block:
            self._publish.end(self._store)
            self._marks |= dict.fromkeys(self._publish.partitions, self._publish.mark)
            version = self._publish.mark.partition(" ")[0]
            self._publish, self._share, self._ended = None, 1.0, time.monotonic()
            self._log.info("Published all lists of %s.", version)
        return block

    def written(self) -> None:
        """The block that was begun is written."""
        if self._publish:
            self._publish.written()

    def failed(self) -> None:
        """A list of the block that was begun cannot be made."""
        if self._publish:
            self._publish.failed()

    def keep(self, recommender: Recommender) -> None:
        """Write again what an evicting Redis may have thrown away beside the lists."""
        if not self._marks or self._publish:
            return
        describe(recommender, self._store)
        for partition, mark in self._marks.items():
            self._store.put_published([partition], mark)

    def _missing(self, mine: set[int], mark: str) -> set[int]:
        """The partitions whose lists are not what `mark` says."""
        unknown = {p for p in mine if self._marks.get(p) != mark}
        if unknown:
            self._marks |= self._store.published(unknown)
        return {p for p in unknown if self._marks.get(p) != mark}

    def _renewal_due(self) -> bool:
        took = self._ended - self._began
        return time.monotonic() - self._ended > max(RENEW_AFTER, RENEW_TIMES * took)
