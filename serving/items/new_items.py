"""Items that the model in use has not seen become recommendable, by the users who like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from consumer.event.json import FORGET, Event
from serving.edges.edge import Edges, columns, together
from serving.edges.user_edges import UserEdges
from serving.items.likers import FEWEST, MOST_USERS, Likers, likes_of_new_items
from serving.items.served_model import ServedModel
from serving.items.shared_likers import Liker, by_item, told
from trainer.embedding.edges import Own
from trainer.embedding.item_fold_in import can_fold, fold_in

AT_ONCE = 8  # items folded in between two looks at the stream


class _User(NamedTuple):
    """Who likes a new item: the user's edges with their weights; the model's number of a user of
    this process, -1 for none; the row that another process has told of its user."""

    edges: Edges
    number: int
    row: Sequence[float] = ()


class NewItems:
    """Of one model; when another goes live, the new items are found anew.

    Who has a negative interaction with an item, or one of a type that weighs nothing, does not
    like it and does not count.
    """

    def __init__(self, model: ServedModel, edges: UserEdges) -> None:
        self._model = model
        self._edges = edges
        self._known = set(model.item_ids[: model.trained.n_items])
        self._recommended: set[str] = set()  # of the new items
        self._likers = Likers()
        self._others: dict[str, list[Liker]] = {}  # users of other processes by item
        self._newest_elsewhere = 0  # epoch milliseconds of the newest edge of other processes
        self._placed: dict[str, int] = {}  # item -> users by whom it was placed last
        self._foldable = can_fold(model.trained)
        self.find()

    def find(self) -> None:
        """Look for them in all edges: of the store, and what the topic has told since."""
        if not self._foldable:
            return
        self._likers = Likers()
        for user, item in likes_of_new_items(self._edges, self._known):
            self._note_like(user, item)
        due = self._likers.due
        for item in [item for item in due if self._count(item) == self._placed.get(item, 0)]:
            del due[item]

    def note(self, event: Event) -> None:
        """Remember who likes an item that the model has not seen, as the edges say now."""
        if event.type == FORGET or event.item_id in self._known or not self._foldable:
            return
        if self._edges.likes(event.user_id, event.item_id):
            self._note_like(event.user_id, event.item_id)
        else:
            self._likers.drop(event.user_id, event.item_id)

    def tell(self) -> list[Liker]:
        """Users of this process who like new items, for the other processes."""
        return told(self._likers, self._edges, self._model)

    def hear(self, likers: Sequence[Liker], newest: int) -> None:
        """Take the place of what other processes have told before.

        Args:
            newest: epoch milliseconds of their newest edge.
        """
        if not self._foldable:
            return
        before, self._others = self._others, by_item(likers, self._known)
        self._newest_elsewhere = newest
        # While partitions move two processes may tell of one user: fewer users count too.
        for item in before.keys() | self._others.keys():
            changed = len(self._others.get(item, ())) != len(before.get(item, ()))
            if changed and self._count(item) != self._placed.get(item, 0):
                self._likers.due[item] = None

    def fold(self) -> list[int]:
        """Fold in some that enough users like since; returns their numbers in the model.

        Those that are not recommended yet come first, by the number of users who like them.
        """
        model, due = self._model, self._likers.due
        no_room = not model.room  # for others than those that it has already
        for item in list(due):
            if self._count(item) < FEWEST or (no_room and not model.has(item)):
                del due[item]
        first = sorted(due, key=lambda item: (model.has(item), -self._count(item)))
        items = first[:AT_ONCE]
        for item in items:
            del due[item]
        known: dict[str, Edges] = {}  # edges of users, many of whom like several of the items
        likes = {item: self._likes(item, known) for item in items}
        likes = {item: users for item, users in likes.items() if len(users) >= FEWEST}
        return self._fold(likes) if likes else []

    def _count(self, item: str) -> int:
        return len(self._likers.of.get(item, ())) + len(self._others.get(item, ()))

    def _note_like(self, user: str, item: str) -> None:
        if self._model.room or item in self._likers.of:  # else it could not be recommended
            self._likers.add(user, item, self._recommended)

    def _likes(self, item: str, known: dict[str, Edges]) -> dict[object, _User]:
        """Who likes the item, the newest ones: by the user's id, or by what another process told.

        The users of an item are the same in all processes, if they are too many too.
        """
        found: dict[object, _User] = {}
        for user in self._likers.of.get(item, ()):
            edges = known.get(user)
            if edges is None:
                edges = known[user] = self._edges.weights(user)
            if item in edges and edges[item].weight > 0:
                found[user] = _User(edges, self._model.number(user))
        for liker in self._others.get(item, ()):
            found[id(liker)] = _User(liker.ordered(), -1, liker.row)
        if len(found) > MOST_USERS:
            newest = sorted(found, key=lambda who: found[who].edges[item].timestamp)[-MOST_USERS:]
            return {who: found[who] for who in newest}
        return found

    def _fold(self, likes: dict[str, dict[object, _User]]) -> list[int]:
        model = self._model
        users: dict[object, _User] = {}
        for liked in likes.values():
            users |= liked
        place = {who: number for number, who in enumerate(users)}
        newest = max(self._edges.newest, self._newest_elsewhere)
        weighing = self._edges.graph.weighing
        of_users = columns([user.edges for user in users.values()], model.numbers, weighing, newest)
        own = together([each for each, _ in of_users])
        flat = [
            (place[who], int(own.starts[place[who]]) + list(user.edges).index(item))
            for item, liked in likes.items()
            for who, user in liked.items()
        ]
        edges = torch.tensor([edge for _, edge in flat])
        lengths = torch.tensor([0, *map(len, likes.values())])
        touched = Own(
            lengths.cumsum(0),
            torch.tensor([at for at, _ in flat]),
            own.strengths[edges],
            None if own.ages is None else own.ages[edges],
        ).to(model.device)
        own = own.to(model.device)
        trained = own.only((own.items >= 0) & (own.items < model.trained.n_items))
        settings = {n: v for n, v in model.manifest.settings.items() if isinstance(v, int | float)}
        embeddings, numbers = model.with_rows([(u.number, u.row) for u in users.values()])
        folded = fold_in(embeddings, settings, numbers, trained, own.sums(), touched)
        taken = model.take_up(list(likes), folded)
        self._recommended |= {item for item in likes if model.has(item)}
        self._placed |= {item: len(liked) for item, liked in likes.items()}
        return taken
