"""Blocks of lists, and the writing of all lists of a snapshot block by block.

A block is begun, so that its lists are made on other threads while the caller does something else,
and written later. Nobody else may write a list between the two, so none is ever overwritten by one
of older edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from serving.edges.user_edges import UserEdges
from serving.lists.ranking import Recommender, Source, Values
from serving.redis.contract import MODEL, Recommendations
from serving.redis.store import Store


class Block:
    """Lists of users, and similar items, that are being made.

    users: whose lists it has, those with new events first.
    """

    def __init__(
        self,
        recommender: Recommender,
        edges: UserEdges,
        popular: Recommendations,
        live: Sequence[str],
        others: Sequence[str] = (),
        items: Sequence[int] = (),
    ) -> None:
        """Begin, with the edges as they are now. Who is forgotten gets no list.

        Args:
            live: users with new events; others: those whose lists are rewritten without.
            items: numbers of items whose similar items are written.
        """
        known = set(live)
        users = [*live, *(user for user in others if user not in known)]
        self.users = [user for user in users if edges.has(user)]
        sources: list[Source] = ["live" if user in known else "model" for user in self.users]
        self._lists = recommender.lists(self.users, edges, sources, popular)
        self._similar: Iterator[Values] = recommender.neighbors(items) if items else iter(())

    def write(self, store: Store) -> None:
        """Write it, once.

        Raises:
            RedisDown: some lists may be written, some not.
        """
        for values in self._lists:
            store.put_users(*values)
        for values in self._similar:
            store.put_neighbors(*values)


class Publish:
    """Writes what belongs to some of the topic's partitions; it can stop and go on.

    What belongs to other partitions is written by those who read them; the snapshot's items belong
    to partitions by turns, new ones to all who know them.
    """

    def __init__(
        self, recommender: Recommender, edges: UserEdges, partitions: set[int], of: int, mark: str
    ) -> None:
        """Nothing is written yet.

        Args:
            partitions: numbers from 0 to `of` - 1.
            mark: written for each of them when all is done.
        """
        self.partitions, self.mark = partitions, mark
        self._recommender, self._edges = recommender, edges
        self._users = edges.users(partitions)
        numbers, step = np.arange(len(recommender.item_ids)), 2 * recommender.block
        trained = recommender.trained.n_items  # new items are all of this process
        mine = np.isin(numbers // step % of, list(partitions)) | (numbers >= trained)
        self._items = numbers[mine].tolist()
        self._at = 0  # of the users, then of the items
        self._begun = 0  # others or items of the block that is not written yet
        self._careful_to = 0  # up to there one at a time

    @property
    def share(self) -> float:
        """Of the lists that are written."""
        return self._at / max(1, len(self._users) + len(self._items))

    @property
    def careful(self) -> bool:
        """Whether a list of the next ones failed, so that they are made one at a time."""
        return self._at < self._careful_to

    def begin(self, popular: Recommendations, due: Callable[[int], list[str]]) -> Block | None:
        """The next block; the same as before if that one was not `written`; None after the last.

        Args:
            due: at most so many users with new events. They take places in a block, where a list
                costs far less than alone.
        """
        size, item = self._recommender.block, self._at - len(self._users)
        if item >= len(self._items):
            return None
        live = [] if self.careful else due(size // 2)
        self._begun = 0  # lest a failure in what follows passes over anything
        if item < 0:
            some = 1 if self.careful else size - len(live)
            others = self._users[self._at : self._at + some]
            self._begun = len(others)
            return Block(self._recommender, self._edges, popular, live, others)
        # Similar items are made in half the time of lists.
        items = self._items[item : item + (1 if self.careful else 2 * size)]
        self._begun = len(items)
        return Block(self._recommender, self._edges, popular, live, items=items)

    def written(self) -> None:
        """The block that was begun is written."""
        self._at += self._begun

    def failed(self) -> None:
        """A list of the block that was begun cannot be made: each is tried alone, then left."""
        if self.careful:
            self._at += self._begun
        else:
            self._careful_to = self._at + self._begun

    def end(self, store: Store) -> None:
        """After the last block: tell readers of the model, and other processes that all is done.

        Raises:
            RedisDown: it is to be done again.
        """
        describe(self._recommender, store)
        store.put_published(self.partitions, self.mark)


def describe(recommender: Recommender, store: Store) -> None:
    """Write the description of the live model."""
    manifest = recommender.manifest
    values = (
        manifest.version, manifest.trained_at, manifest.users, manifest.items, manifest.edges,
        round(manifest.metrics.get("recall@20", 0.0), 5),
        round(manifest.metrics.get("ndcg@20", 0.0), 5),
    )  # fmt: skip
    store.put_model(dict(zip(MODEL, values, strict=True)))
