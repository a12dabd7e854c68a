"""When all lists are written: for a new model, after Redis has lost them, and again where they
are of that model but could be better."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Set

from serving.edges.user_edges import UserEdges
from serving.lists.popular_list import PopularList
from serving.lists.recommender import Recommender
from serving.loop.all_lists import AllLists, describe_model
from serving.loop.list_block import ListBlock
from serving.redis.store import Store
from trainer.memory import trim

NEW_ITEMS = "items that are newer than the model can be recommended now"
OTHER_EDGES = "the whole edge store was read again"
UNFINISHED = "the process that began to write them again has not ended that"
AGAIN = " again"  # behind the edition in Redis, until all lists of it are written again
# Seconds from the end of a publication to one that writes its lists again: at least so many,
RENEW_AFTER = 5.0
RENEW_TIMES = 2.0  # and at least this many times as long as the last one took


class Publication:
    """The publications of this process, one after another.

    A partition's lists are as they should be if its edition in Redis is the present one. What Redis
    says of the editions is asked once, as nobody else writes the lists of a partition that is read
    here: a Redis that evicts keys may lose it.
    """

    def __init__(self, store: Store, log: logging.Logger) -> None:
        self._store, self._log = store, log
        self._editions: dict[int, str] = {}  # of partitions, as far as they are known
        self._to_renew: dict[int, str] = {}  # partitions, and why their lists are written again
        self._lists: AllLists | None = None  # that are written now
        self._renewing: dict[int, str] = {}  # these partitions, if theirs are written again
        self._progress = 0.0
        self._began_at = self._ended_at = 0.0  # of the last one

    @property
    def running(self) -> bool:
        """Whether there is more to be written."""
        return self._lists is not None

    @property
    def is_renewal(self) -> bool:
        """Whether what runs replaces lists that are of the present edition."""
        return bool(self._renewing)

    @property
    def progress(self) -> float:
        """The share of the last publication that is written, 0 to 1."""
        return self._lists.progress if self._lists else self._progress

    @property
    def careful(self) -> bool:
        """Whether the next lists are made one at a time, as one of them failed."""
        return self._lists is not None and self._lists.careful

    def renew(self, partitions: Set[int], why: str) -> None:
        """Write the lists of the users of these partitions again; `why` is for the log."""
        self._to_renew |= dict.fromkeys(partitions, why)

    def drop(self) -> None:
        """The partitions read here have changed: what runs may be another process's to write."""
        if self._lists:
            self._to_renew = self._renewing | self._to_renew
        self._lists = None
        self._editions.clear()

    def start_over(self) -> None:
        """There is a new model without new items, or Redis has lost what was written."""
        self._lists = None
        self._to_renew.clear()
        self._editions.clear()

    def begin_if_due(
        self,
        recommender: Recommender,
        edges: UserEdges,
        mine: Set[int],
        n_partitions: int,
        edition: str,
    ) -> None:
        """Begin a publication if one is due and none runs.

        Args:
            mine: the topic's partitions that are read here.
            n_partitions: of the topic, whoever reads them.
            edition: the present one.

        Raises:
            RedisDown: nothing is begun.
        """
        if self._lists or not mine or not n_partitions:
            return
        missing, version = self._missing(mine, edition), recommender.model.version
        again = {p: why for p, why in self._to_renew.items() if p in mine}
        self._note_renewals(again, edition)
        if missing:
            self._log.info(
                "Writing all lists of model %s for the users of partitions %s.",
                version, sorted(missing),
            )  # fmt: skip
        elif again and self._renewal_is_due():
            self._log.info(
                "Writing all lists of model %s again for the users of partitions %s: %s.",
                version, sorted(again), "; ".join(sorted(set(again.values()))),
            )  # fmt: skip
        else:
            self._progress = 1.0  # another process may have written them
            return
        self._renewing = {} if missing else again
        partitions = missing or set(again)
        self._lists = AllLists(recommender, edges, partitions, n_partitions, edition)
        self._to_renew = {p: why for p, why in self._to_renew.items() if p not in partitions}
        self._began_at = time.monotonic()

    def next_block_or_end(
        self, popular: PopularList, take_due: Callable[[int], list[str]]
    ) -> ListBlock | None:
        """The next block of what runs; None if it is done, which is noted in Redis and the log.

        Args:
            take_due: as `AllLists.begin`.

        Raises:
            RedisDown: it is not done, and is to be called again.
        """
        lists = self._lists
        if not lists:
            return None
        block = lists.begin(popular, take_due)
        if not block:
            lists.end(self._store)
            self._editions |= dict.fromkeys(lists.partitions, lists.edition)
            self._lists, self._progress, self._ended_at = None, 1.0, time.monotonic()
            version = lists.recommender.model.version
            trim()  # what the lists took; some milliseconds
            self._log.info(
                "Wrote all lists of model %s for the users of partitions %s.",
                version, sorted(lists.partitions),
            )  # fmt: skip
        return block

    def written(self) -> None:
        """The block that was begun is written."""
        if self._lists:
            self._lists.written()

    def failed(self) -> None:
        """A list of the block that was begun cannot be made."""
        if self._lists:
            self._lists.failed()

    def keep(self, recommender: Recommender) -> None:
        """Write again what a Redis that evicts keys may have thrown away beside the lists."""
        if not self._editions or self._lists:
            return
        describe_model(recommender, self._store)
        for partition, edition in self._editions.items():
            self._store.put_published([partition], edition)

    def _missing(self, mine: Set[int], edition: str) -> set[int]:
        """The partitions whose lists are not of the edition."""
        unknown = {p for p in mine if self._editions.get(p) != edition}
        if unknown:
            self._editions |= self._store.published(unknown)
        for partition in unknown:
            if self._editions.get(partition) == edition + AGAIN:
                self._to_renew.setdefault(partition, UNFINISHED)
        return {p for p in unknown if self._editions.get(p) not in (edition, edition + AGAIN)}

    def _note_renewals(self, partitions: Collection[int], edition: str) -> None:
        """Note in Redis what is to be written again, for who takes a partition over meanwhile."""
        new = {p for p in partitions if self._editions.get(p) == edition}
        if new:
            self._store.put_published(new, edition + AGAIN)
            self._editions |= dict.fromkeys(new, edition + AGAIN)

    def _renewal_is_due(self) -> bool:
        took = self._ended_at - self._began_at
        return time.monotonic() - self._ended_at > max(RENEW_AFTER, RENEW_TIMES * took)
