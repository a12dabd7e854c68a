"""What a serving process of a replay makes of users' edges: the lists that users would read.

Where serving writes a list to Redis after each event of a user, a replay makes the list when the
user's next event asks for it: from the same edges, by the same code. What serving does every
second, or less often, a replay does between two blocks of events.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.event.json import FORGET, Event
from serving.edges.edge import Edges
from serving.edges.user_edges import UserEdges
from serving.items.new_items import NewItems
from serving.items.served_model import ServedModel, UserBlock
from serving.lists.recommender import Recommender
from serving.settings import ServingSettings
from trainer.device import device
from trainer.lifecycle.manifest import Snapshot

List = list[str]  # of items, the best first; empty where the user reads the popular list
Asked = tuple[str, Edges | None]  # a user, and what `UserEdges.told` gives at the moment


class Served:
    """A model in use, and the items that came after it."""

    def __init__(self, settings: ServingSettings, edges: UserEdges, threads: int) -> None:
        """`edges`: of all users, as of now; `threads`: that make lists."""
        self._settings = settings
        self._edges = edges
        self._threads = threads
        self._recommender: Recommender | None = None
        self._new_items: NewItems | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        return self._recommender is not None

    def take_up(self, snapshot: Snapshot) -> None:
        """Use a model from now on."""
        model = ServedModel(snapshot, device(self._settings.device))
        self._recommender = Recommender(model, self._settings.top_k, self._threads)
        self._edges.dampen(model.trained.dampened)
        self._new_items = NewItems(model, self._edges)

    def learn(self, event: Event) -> None:
        """Take one event, which the users' edges have taken."""
        if self._recommender and event.type == FORGET:
            self._recommender.model.forget(event.user_id)
        if self._new_items:
            self._new_items.note(event)

    def look(self) -> None:
        """Make items recommendable that are new to the model, as serving does every second."""
        if self._new_items and self._recommender:
            self._edges.dampen(self._recommender.model.trained.dampened)
            self._recommender.renew(self._new_items.fold())

    def lists(self, asked: Sequence[Asked]) -> list[List]:
        """The lists of users with the edges that they had when they were asked for; before there
        is a model they are empty."""
        if not asked or not self._recommender:
            return [[] for _ in asked]
        model, size = self._recommender.model, self._recommender.block_size
        self._edges.dampen(model.trained.dampened)
        users, told = zip(*asked, strict=True)
        block = model.block(users, self._edges, told)
        made: list[List] = []
        for begin in range(0, len(users), size):
            for _, lists in self._recommender.rank(_part(block, begin, begin + size), False):
                for items, count in zip(lists.items.tolist(), lists.counts.tolist(), strict=True):
                    made.append([model.item_ids[number] for number in items[:count]])
        return made


def _part(block: UserBlock, begin: int, end: int) -> UserBlock:
    end = min(end, len(block.numbers))
    return UserBlock(
        block.numbers[begin:end], block.own.slice(begin, end), block.event_at[begin:end]
    )
