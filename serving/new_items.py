"""Items that the live model has not seen: who touched them, and their fold-in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from consumer.event.json import FORGET, REMOVE, Event
from serving.fold_in import Recommender
from serving.user_edges import UserEdges
from trainer.embeddings import Own
from trainer.new_items import can_fold, fold_in

FEWEST = 3  # users who must have touched an item before it is recommended
MOST_USERS = 100  # newest ones, by whom an item is placed
AT_ONCE = 8  # items folded in between two looks at the stream
Touch = tuple[str, float, int]  # a user, weight and age of the edge to the item


class NewItems:
    """Of one model; when another goes live, its new items are found anew."""

    def __init__(self, recommender: Recommender, edges: UserEdges) -> None:
        self._recommender = recommender
        self._known = set(recommender.item_ids[: recommender.trained.n_items])
        self._users: dict[str, dict[str, None]] = {}  # by item, newest last
        self._due: dict[str, None] = {}
        self.find(edges)

    def find(self, edges: UserEdges) -> None:
        """Look for them in all edges: of the store, and what the log says since."""
        if can_fold(self._recommender.trained):
            for user, item in _unseen(edges, self._known):
                self._note(user, item)

    def note(self, event: Event) -> None:
        """Remember who touched an item that the model has not seen."""
        if event.type in (FORGET, REMOVE) or event.item_id in self._known:
            return
        if can_fold(self._recommender.trained):
            self._note(event.user_id, event.item_id)

    def fold(self, edges: UserEdges) -> list[int]:
        """Fold in some that enough users have touched since; returns their numbers.

        Those that are not recommended yet come first, by the users who touched them.
        """
        model = self._recommender
        if not model.room:  # for others than those that it has already
            self._due = {item: None for item in self._due if model.has(item)}
        first = sorted(self._due, key=lambda item: (model.has(item), -len(self._users[item])))
        items = first[:AT_ONCE]
        for item in items:
            del self._due[item]
        touches = [
            (item, [(u, *e) for u in self._users[item] if (e := edges.touch(u, item))])
            for item in items
        ]
        touches = [(item, users) for item, users in touches if len(users) >= FEWEST]
        return self._fold(dict(touches), edges) if touches else []

    def _note(self, user: str, item: str) -> None:
        users = self._users.setdefault(item, {})
        users.pop(user, None)
        users[user] = None
        if len(users) > MOST_USERS:
            users.pop(next(iter(users)))
        if len(users) >= FEWEST:
            self._due[item] = None

    def _fold(
        self, touches: dict[str, list[tuple[str, float, int]]], edges: UserEdges
    ) -> list[int]:
        model = self._recommender
        users = list({user: None for touched in touches.values() for user, *_ in touched})
        place = {user: number for number, user in enumerate(users)}
        block, numbers = model.own(users, edges)
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
    """User and item of each edge to an item that is not `known`, the oldest first."""
    graph = edges.graph
    new = ~pc.is_in(graph.item_ids.values, value_set=pa.array(list(known), pa.string())).to_numpy(
        zero_copy_only=False
    )
    at = np.flatnonzero(new[graph.items])
    at = at[np.argsort(graph.timestamps[at], kind="stable")]
    users = graph.user_ids.values.take(pa.array(graph.users[at])).to_pylist()
    items = graph.item_ids.values.take(pa.array(graph.items[at])).to_pylist()
    made = list(zip(users, items, strict=True))
    for user, change in edges.changed.items():
        made += [(user, item) for item in change.items if item not in known]
    return made
