"""Items that the model in use has not seen become recommendable, by the users who like them."""

from __future__ import annotations

import torch

from consumer.event.json import FORGET, Event
from serving.edges.user_edges import UserEdges
from serving.items.likers import FEWEST, Likers, likes_of_new_items
from serving.items.served_model import ServedModel
from trainer.embedding.edges import Own
from trainer.embedding.item_fold_in import can_fold, fold_in

AT_ONCE = 8  # items folded in between two looks at the stream
Like = tuple[str, float, int]  # a user, strength and age of the edge to the item


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
        self._foldable = can_fold(model.trained)
        self.find()

    def find(self) -> None:
        """Look for them in all edges: of the store, and what the topic has told since."""
        if self._foldable:
            for user, item in likes_of_new_items(self._edges, self._known):
                self._note_like(user, item)

    def note(self, event: Event) -> None:
        """Remember who likes an item that the model has not seen, as the edges say now."""
        if event.type == FORGET or event.item_id in self._known or not self._foldable:
            return
        if self._edges.likes(event.user_id, event.item_id):
            self._note_like(event.user_id, event.item_id)
        else:
            self._likers.drop(event.user_id, event.item_id)

    def fold(self) -> list[int]:
        """Fold in some that enough users like since; returns their numbers in the model.

        Those that are not recommended yet come first, by the number of users who like them.
        """
        model, due = self._model, self._likers.due
        if not model.room:  # for others than those that it has already
            for item in [item for item in due if not model.has(item)]:
                del due[item]
        first = sorted(due, key=lambda item: (model.has(item), -len(self._likers.of[item])))
        items = first[:AT_ONCE]
        for item in items:
            del due[item]
        likes = {item: self._likes(item) for item in items}
        likes = {item: users for item, users in likes.items() if len(users) >= FEWEST}
        return self._fold(likes) if likes else []

    def _note_like(self, user: str, item: str) -> None:
        if self._model.room or item in self._likers.of:  # else it could not be recommended
            self._likers.add(user, item, self._recommended)

    def _likes(self, item: str) -> list[Like]:
        found = ((user, self._edges.touch(user, item)) for user in self._likers.of[item])
        return [(user, *edge) for user, edge in found if edge and edge[0] > 0]

    def _fold(self, likes: dict[str, list[Like]]) -> list[int]:
        model = self._model
        users = list({user: None for liked in likes.values() for user, *_ in liked})
        place = {user: number for number, user in enumerate(users)}
        block = model.block(users, self._edges)
        own = block.own.to(model.device)
        trained = own.only((own.items >= 0) & (own.items < model.trained.n_items))
        flat = [(place[user], *edge) for liked in likes.values() for user, *edge in liked]
        lengths = torch.tensor([0, *map(len, likes.values())])
        touched = Own(
            lengths.cumsum(0),
            torch.tensor([at for at, *_ in flat]),
            torch.tensor([strength for _, strength, _ in flat], dtype=torch.float32),
            torch.tensor([age for *_, age in flat]),
        ).to(model.device)
        settings = {n: v for n, v in model.manifest.settings.items() if isinstance(v, int | float)}
        numbers = block.numbers.to(model.device)
        folded = fold_in(model.trained, settings, numbers, trained, own.sums(), touched)
        taken = model.take_up(list(likes), folded)
        self._recommended |= {item for item in likes if model.has(item)}
        return taken
