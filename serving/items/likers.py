"""Who likes the items that the model in use has not seen."""

from __future__ import annotations

from collections import deque

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.edges.user_edges import UserEdges

FEWEST = 3  # users who must like an item before it is recommended
MOST_USERS = 100  # newest ones, by whom an item is placed
MOST_LIKES = 200_000  # users of items together that are remembered until the next model


class Likers:
    """The newest users who like each new item; the items that were touched least recently are
    forgotten beyond MOST_LIKES, but for those that are recommended already.

    of: the users of each item, the least recently touched item first. due: items that more users
    like since they were taken up last.
    """

    def __init__(self) -> None:
        self.of: dict[str, dict[str, None]] = {}
        self.due: dict[str, None] = {}
        self._likes = 0  # users of items, together

    def add(self, user: str, item: str, recommended: set[str]) -> None:
        """The user likes the item.

        Args:
            recommended: the new items that are recommended already.
        """
        users = self.of[item] = self.of.pop(item, {})  # the most recently touched one now
        places_better = user not in users and len(users) < MOST_USERS
        self._likes += user not in users
        users.pop(user, None)
        users[user] = None
        if len(users) > MOST_USERS:
            users.pop(next(iter(users)))
            self._likes -= 1
        # All lists are published again after each fold-in, so a repeated event asks for none.
        if places_better:
            self.due[item] = None
        if self._likes > MOST_LIKES:
            self._forget_oldest(recommended)

    def drop(self, user: str, item: str) -> None:
        """The user does not like the item, or likes it no more."""
        users = self.of.get(item, {})
        if user in users:
            del users[user]
            self._likes -= 1
            if not users:
                del self.of[item]
                self.due.pop(item, None)

    def _forget_oldest(self, recommended: set[str]) -> None:
        """A tenth at once, as each time all that is recommended is passed over."""
        most = MOST_LIKES - MOST_LIKES // 10
        for item in [item for item in self.of if item not in recommended]:
            if self._likes <= most:
                return
            self._likes -= len(self.of.pop(item))
            self.due.pop(item, None)


def likes_of_new_items(edges: UserEdges, known: set[str]) -> list[tuple[str, str]]:
    """User and item of edges of some strength to items that are not `known`, the oldest first.

    Of the store's edges and of the topic's the newest ones, as many as are remembered.
    """
    graph = edges.graph
    new = ~pc.is_in(graph.item_ids.values, value_set=pa.array(list(known), pa.string())).to_numpy(
        zero_copy_only=False
    )
    at = np.flatnonzero(new[graph.items] & (graph.weights > 0))
    at = at[np.argsort(graph.timestamps[at], kind="stable")][-MOST_LIKES:]
    users = graph.user_ids.values.take(pa.array(graph.users[at])).to_pylist()
    items = graph.item_ids.values.take(pa.array(graph.items[at])).to_pylist()
    stored = list(zip(users, items, strict=True))
    since: deque[tuple[str, str]] = deque(maxlen=MOST_LIKES)
    for user, change in edges.changed.items():
        liked = ((user, item) for item, edge in change.items.items() if edge.weight > 0)
        since.extend(pair for pair in liked if pair[1] not in known)
    return [*stored, *since]
