"""A serving process of a replay: events -> users' edges -> the lists that users would read.

Where serving writes a list to Redis after each event of a user, a replay makes the list when the
user's next event asks for it: from the same edges, by the same code. What serving does every
second, or less often, a replay does between two blocks of events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from consumer.edge.store import EdgeStore, Log
from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from serving.items.new_items import NewItems
from serving.items.served_model import ServedModel, UserBlock
from serving.lists.recommender import Recommender
from serving.loop.popular import TIMES_AS_LONG
from serving.settings import ServingSettings
from streamgcn.replay.stream import PARTITION
from trainer.device import device
from trainer.embedding.edges import Own
from trainer.lifecycle.manifest import Snapshot

List = list[str]  # of items, the best first; empty where the user reads the popular list


class Served:
    """Users' edges as of now, a model, and the items that came after the model."""

    def __init__(self, settings: ServingSettings, log: Log, threads: int) -> None:
        """`log`: that the events are of, from the first one on; `threads`: that make lists."""
        self._settings = settings
        self._threads = threads
        self._edges = UserEdges(settings.weighing())
        self._edges.begin(log.number, PARTITION, 0)
        self._recommender: Recommender | None = None
        self._new_items: NewItems | None = None
        self._asked: list[UserBlock] = []
        self._asked_too_soon = 0  # users who were asked for before there was a model

    @property
    def ready(self) -> bool:
        """Whether there is a model."""
        return self._recommender is not None

    def take_up(self, snapshot: Snapshot, store: EdgeStore) -> None:
        """Use a model from now on; the store has all events up to now."""
        self.grow(store)
        model = ServedModel(snapshot, device(self._settings.device))
        self._recommender = Recommender(model, self._settings.top_k, self._threads)
        self._edges.dampen(model.trained.dampened)
        self._new_items = NewItems(model, self._edges)

    def grow(self, store: EdgeStore) -> None:
        """Take the events up to now from the store, where they need less memory."""
        self._edges.grow(store)

    def learn(self, event: Event, partition: int, at: Position) -> None:
        """Take one event of the log."""
        self._edges.apply(event, partition, at)
        if self._recommender and event.type == FORGET:
            self._recommender.model.forget(event.user_id)
        if self._new_items:
            self._new_items.note(event)

    def look(self) -> None:
        """Make items recommendable that are new to the model, as serving does every second."""
        if self._new_items and self._recommender:
            self._recommender.renew(self._new_items.fold())

    def popular(self) -> List:
        """The popular list as of now, as long as serving keeps it."""
        return self._edges.popular(self._settings.top_k * TIMES_AS_LONG)[0]

    def ask(self, users: Sequence[str]) -> None:
        """Note the edges of users as they are now, for the lists that `answers` gives."""
        if self._recommender:
            self._asked.append(self._recommender.model.block(users, self._edges))
        else:
            self._asked_too_soon += len(users)

    def answers(self) -> list[List]:
        """The lists that were asked for since the last call, in that order; before there is a
        model they are empty."""
        asked, self._asked = self._asked, []
        made: list[List] = [[] for _ in range(self._asked_too_soon)]
        self._asked_too_soon = 0
        if not asked or not self._recommender:
            return made
        block = _joined(asked)
        size, names = self._recommender.block_size, self._recommender.model.item_ids
        for begin in range(0, len(block.numbers), size):
            for _, lists in self._recommender.rank(_part(block, begin, begin + size), False):
                for items, count in zip(lists.items.tolist(), lists.counts.tolist(), strict=True):
                    made.append([names[number] for number in items[:count]])
        return made


def _joined(blocks: Sequence[UserBlock]) -> UserBlock:
    lengths = torch.cat([block.own.starts.diff() for block in blocks])
    ages = [block.own.ages for block in blocks if block.own.ages is not None]
    return UserBlock(
        torch.cat([block.numbers for block in blocks]),
        Own(
            torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            torch.cat([block.own.items for block in blocks]),
            torch.cat([block.own.strengths for block in blocks]),
            torch.cat(ages) if ages else None,
        ),
        np.concatenate([block.event_at for block in blocks]),
    )


def _part(block: UserBlock, begin: int, end: int) -> UserBlock:
    end = min(end, len(block.numbers))
    return UserBlock(
        block.numbers[begin:end], block.own.slice(begin, end), block.event_at[begin:end]
    )
