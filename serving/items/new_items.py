"""Items that the live model has not seen: who touched them, and their fold-in."""

from __future__ import annotations

from collections import deque

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from consumer.event.json import FORGET, Event
from serving.edges.user_edges import UserEdges
from serving.lists.ranking import Recommender
from trainer.embedding.edges import Own
from trainer.embedding.item_fold_in import can_fold, fold_in

FEWEST = 3  # users who must like an item before it is recommended
MOST_USERS = 100  # newest ones, by whom an item is placed
MOST_TOUCHES = 200_000  # users of items together that are remembered until the next model
AT_ONCE = 8  # items folded in between two looks at the stream
Touch = tuple[str, float, int]  # a user, weight and age of the edge to the item


class NewItems:
    """Of one model; when another goes live, its new items are found anew.

    Who has a negative interaction with an item, or one of a type that weighs nothing, does not
    like it and does not count. The items that were touched least recently are forgotten beyond
    MOST_TOUCHES; those that are recommended already stay.
    """

    def __init__(self, recommender: Recommender, edges: UserEdges) -> None:
        self._recommender = recommender
        self._edges = edges
        self._known = set(recommender.item_ids[: recommender.trained.n_items])
        self._users: dict[str, dict[str, None]] = {}  # by item, least recently touched first
        self._touches = 0  # users of items, together
        self._due: dict[str, None] = {}
        self._foldable = can_fold(recommender.trained)
        self.find()

    def find(self) -> None:
        """Look for them in all edges: of the store, and what the log says since."""
        if self._foldable:
            for user, item in _unseen(self._edges, self._known):
                self._note(user, item)

    def note(self, event: Event) -> None:
        """Remember who likes an item that the model has not seen, as the edges say now."""
        if event.type == FORGET or event.item_id in self._known or not self._foldable:
            return
        if self._edges.likes(event.user_id, event.item_id):
            self._note(event.user_id, event.item_id)
        else:
            self._drop(event.user_id, event.item_id)

    def fold(self) -> list[int]:
        """Fold in some that enough users like since; returns their numbers.

        Those that are not recommended yet come first, by the users who like them.
        """
        model = self._recommender
        if not model.room:  # for others than those that it has already
            self._due = {item: None for item in self._due if model.has(item)}
        first = sorted(self._due, key=lambda item: (model.has(item), -len(self._users[item])))
        items = first[:AT_ONCE]
        for item in items:
            del self._due[item]
        touches = [(item, self._who_like(item)) for item in items]
        touches = [(item, users) for item, users in touches if len(users) >= FEWEST]
        return self._fold(dict(touches)) if touches else []

    def _who_like(self, item: str) -> list[Touch]:
        found = ((user, self._edges.touch(user, item)) for user in self._users[item])
        return [(user, *edge) for user, edge in found if edge and edge[0] > 0]

    def _note(self, user: str, item: str) -> None:
        users = self._users.pop(item, None)
        if users is None and not self._recommender.room:
            return  # it could not be recommended
        users = self._users[item] = users or {}  # the most recently touched one now
        more = user not in users and len(users) < MOST_USERS
        self._touches += user not in users
        users.pop(user, None)
        users[user] = None
        if len(users) > MOST_USERS:
            users.pop(next(iter(users)))
            self._touches -= 1
        # All lists are published again after each fold-in, so a repeated event asks for none.
        if more and len(users) >= FEWEST:
            self._due[item] = None
        if self._touches > MOST_TOUCHES:
            self._forget_oldest()

    def _drop(self, user: str, item: str) -> None:
        users = self._users.get(item, {})
        if user in users:
            del users[user]
            self._touches -= 1
            if not users:
                del self._users[item]
            if len(users) < FEWEST:
                self._due.pop(item, None)

    def _forget_oldest(self) -> None:
        """A tenth at once, as each time all that is recommended is passed over."""
        most = MOST_TOUCHES - MOST_TOUCHES // 10
        for item in [item for item in self._users if not self._recommender.has(item)]:
            if self._touches <= most:
                return
            self._touches -= len(self._users.pop(item))
            self._due.pop(item, None)

    def _fold(self, touches: dict[str, list[Touch]]) -> list[int]:
        model = self._recommender
        users = list({user: None for touched in touches.values() for user, *_ in touched})
        place = {user: number for number, user in enumerate(users)}
        block, numbers = model.own(users, self._edges)
        rows = np.repeat(np.arange(len(users)), np.diff(block.starts))
        totals = np.bincount(rows, block.strengths, len(users))
        seen = (block.items >= 0) & (block.items < model.trained.n_items)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(seen)])
        flat = [(place[user], *edge) for touched in touches.values() for user, *edge in touched]
        columns = (
            numbers,
            totals.astype(np.float32),
            before[block.starts], block.items[seen], block.strengths[seen], block.ages[seen],
            np.cumsum([0, *map(len, touches.values())]),
            np.array([at for at, *_ in flat], np.int64),
            np.array([weight for _, weight, _ in flat], np.float32),
            np.array([age for *_, age in flat], np.int64),
        )  # fmt: skip
        on_device = [torch.from_numpy(column).to(model.device) for column in columns]
        settings = {n: v for n, v in model.manifest.settings.items() if isinstance(v, int | float)}
        own, touched = Own(*on_device[2:6]), Own(*on_device[6:])
        folded = fold_in(model.trained, settings, on_device[0], own, on_device[1], touched)
        return model.take_up(list(touches), folded)


def _unseen(edges: UserEdges, known: set[str]) -> list[tuple[str, str]]:
    """User and item of edges of some strength to items that are not `known`, the oldest first.

    Of each source the newest ones, as many as are remembered.
    """
    graph = edges.graph
    new = ~pc.is_in(graph.item_ids.values, value_set=pa.array(list(known), pa.string())).to_numpy(
        zero_copy_only=False
    )
    at = np.flatnonzero(new[graph.items] & (graph.weights > 0))
    at = at[np.argsort(graph.timestamps[at], kind="stable")][-MOST_TOUCHES:]
    users = graph.user_ids.values.take(pa.array(graph.users[at])).to_pylist()
    items = graph.item_ids.values.take(pa.array(graph.items[at])).to_pylist()
    made = list(zip(users, items, strict=True))
    since: deque[tuple[str, str]] = deque(maxlen=MOST_TOUCHES)
    for user, change in edges.changed.items():
        of_user = ((user, item) for item, edge in change.items.items() if edge.weight > 0)
        since.extend(pair for pair in of_user if pair[1] not in known)
    return [*made, *since]
