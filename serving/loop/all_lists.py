"""All lists of one edition, written block by block.

An edition is what all lists are made of: the model, the present life of Redis, the settings. A
user's list belongs to the process that reads the partition of the user's events.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np

from serving.edges.user_edges import UserEdges
from serving.lists.popular_list import PopularList
from serving.lists.recommender import Recommender
from serving.loop.list_block import ListBlock
from serving.redis.contract import MODEL
from serving.redis.store import Store


class AllLists:
    """Writes what belongs to some of the topic's partitions; it can stop and go on.

    What belongs to other partitions is written by the processes that read them. The snapshot's
    items belong to partitions by turns, new items to all processes that know them.
    """

    def __init__(
        self,
        recommender: Recommender,
        edges: UserEdges,
        partitions: Set[int],
        n_partitions: int,
        edition: str,
    ) -> None:
        """Nothing is written yet.

        Args:
            partitions: numbers from 0 to n_partitions - 1.
            edition: noted in Redis for each of them when all lists are written.
        """
        self.partitions, self.edition = partitions, edition
        self.recommender = recommender
        self._edges = edges
        self._users = edges.users(partitions)
        self._items = _items_of(recommender, partitions, n_partitions)
        self._done = 0  # of the users, then of the items
        self._begun = 0  # users or items of the block that is not written yet
        self._careful_until = 0  # up to there lists are made one at a time

    @property
    def progress(self) -> float:
        """The share of the lists that is written, 0 to 1."""
        return self._done / max(1, len(self._users) + len(self._items))

    @property
    def careful(self) -> bool:
        """Whether one of the next lists could not be made, so that they are made one at a time."""
        return self._done < self._careful_until

    def begin(self, popular: PopularList, take_due: Callable[[int], list[str]]) -> ListBlock | None:
        """Begin the next block; the same again if that was not `written`. None after the last.

        Args:
            take_due: at most so many users with new events. They take slots of a block, where a
                list costs far less than alone.
        """
        size, item = self.recommender.block_size, self._done - len(self._users)
        if item >= len(self._items):
            return None
        with_events = [] if self.careful else take_due(size // 2)
        self._begun = 0  # so that a failure in what follows passes over nothing
        if item < 0:
            slots = 1 if self.careful else size - len(with_events)
            others = self._users[self._done : self._done + slots]
            self._begun = len(others)
            return ListBlock.begin(self.recommender, self._edges, popular, with_events, others)
        # Similar items are made in half the time of lists.
        items = self._items[item : item + (1 if self.careful else 2 * size)]
        self._begun = len(items)
        return ListBlock.begin(self.recommender, self._edges, popular, with_events, items=items)

    def written(self) -> None:
        """The block that was begun is written."""
        self._done += self._begun

    def failed(self) -> None:
        """A list of the block that was begun cannot be made: each is tried alone, then left."""
        if self.careful:
            self._done += self._begun
        else:
            self._careful_until = self._done + self._begun

    def end(self, store: Store) -> None:
        """After the last block: tell readers of the model, and other processes that all is done.

        Raises:
            RedisDown: it is to be done again.
        """
        describe_model(self.recommender, store)
        store.put_published(self.partitions, self.edition)


def describe_model(recommender: Recommender, store: Store) -> None:
    """Write the description of the model in use."""
    manifest = recommender.model.manifest
    values = (
        manifest.version, manifest.trained_at, manifest.users, manifest.items, manifest.edges,
        round(manifest.metrics.get("recall@20", 0.0), 5),
        round(manifest.metrics.get("ndcg@20", 0.0), 5),
    )  # fmt: skip
    store.put_model(dict(zip(MODEL, values, strict=True)))


def _items_of(recommender: Recommender, partitions: Set[int], n_partitions: int) -> list[int]:
    model = recommender.model
    numbers = np.arange(len(model.item_ids))
    turns = numbers // (2 * recommender.block_size) % n_partitions
    mine = np.isin(turns, list(partitions)) | (numbers >= model.trained.n_items)
    items: list[int] = numbers[mine].tolist()
    return items
