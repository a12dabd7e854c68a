"""The replay itself: each event is predicted from the list of that moment, then learned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from consumer.event.json import FORGET, REMOVE, Event
from consumer.ingest.decode import events, rows
from serving.edges.user_edges import UserEdges
from serving.loop.popular import TIMES_AS_LONG
from serving.settings import ServingSettings
from streamgcn.replay.figures import Figures, Tally, rank
from streamgcn.replay.learner import Learner
from streamgcn.replay.served import Asked, List, Served
from streamgcn.replay.stream import PARTITION, Stream, spans
from trainer.fit.check import NothingJoined
from trainer.lifecycle.manifest import Manifest
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

WAYS = ("refresh_and_retrains", "retrains_alone", "refresh_alone", "popularity")
BLOCK = 256  # events between two looks at new items and at what is popular
CHOSEN = (
    "recency", "transitions_weight", "neighbors_weight", "low_pass_weight", "learned_weight",
    "learned_order",
)  # fmt: skip


class Waiting(NamedTuple):
    """An event whose lists are to be made: the event's number and item, and what the user has."""

    number: int
    item: str
    owned: frozenset[str]
    asked: Asked


class Replay:
    """One run over a log; see docs/replay.md for what is measured."""

    def __init__(
        self,
        stream: Stream,
        settings: ServingSettings,
        hyperparameters: Hyperparameters,
        begin: int,
        every: int,
        together: int = BLOCK,
    ) -> None:
        """Args:
        begin: number of the first event that is predicted.
        every: events between two trainings.
        together: events whose lists are made at a time; it changes no list.
        """
        self._stream = stream
        self._settings = settings
        self._hyperparameters = hyperparameters
        self._begin, self._every = begin, every
        self._together = together
        self._weighing = settings.weighing()
        self._threads = torch.get_num_threads()
        self._edges = UserEdges(self._weighing)
        self._always = Served(settings, self._edges, self._threads)
        self._once = Served(settings, self._edges, self._threads)
        self._tally = Tally(WAYS)
        self._trainings: list[Figures] = []
        self._left_out = dict.fromkeys(("repeated", "not_liked", "removals"), 0)
        self._of_new_items = 0
        self._owned: dict[str, set[str]] = {}  # by user, as of now
        self._items: set[str] = set()  # that anybody has taken
        self._batch: dict[str, List] = {}  # lists of the last training
        self._popular: List = []  # as of now, and at the last training
        self._popular_then: List = []
        self._waiting: list[Waiting] = []

    def run(self, advance: Callable[[int], None]) -> Figures:
        """Play the log to its end; `advance` is told how many events are done.

        Raises:
            NothingToLearn (but not NothingJoined), Diverged, DeviceMissing: as a training.
        """
        n = len(self._stream)
        cuts = set(range(self._begin, n, self._every))
        with tempfile.TemporaryDirectory(prefix="streamgcn-") as folder:
            learner = Learner(Path(folder), self._hyperparameters, self._weighing)
            self._edges.begin(learner.log.number, PARTITION, 0)
            for first, last in spans(0, n, BLOCK, cuts):
                if first in cuts:
                    self._train(learner, first, min(n, first + self._every))
                self._play(learner, first, last)
                advance(last)
        return self._result()

    def _train(self, learner: Learner, first: int, last: int) -> None:
        """Train before the event `first`; the batch lists are read until the event `last`."""
        torch.set_num_threads(self._threads)
        learner.commit()
        try:
            manifest, live = learner.train(quiet)
            self._trainings.append(_training(first, manifest))
        except NothingJoined as error:  # no model is made; an earlier one, if any, stays in use
            self._trainings.append({"before_event": first, "rejected": str(error)})
            live = None
        torch.set_num_threads(1)  # each thread that makes lists works for itself, as in serving
        if live is not None:
            self._edges.grow(learner.store)  # in which they need less memory
            self._always.take_up(live)
            if not self._once.ready:
                self._once.take_up(live)
        users = [user for user in self._stream.users(first, last) if self._owned.get(user)]
        lists = self._always.lists([(user, self._edges.told(user)) for user in users])
        self._batch = dict(zip(users, lists, strict=True))
        self._popular_then = self._most_popular()

    def _play(self, learner: Learner, first: int, last: int) -> None:
        messages = self._stream.messages(first, last)
        learner.take(messages)
        table, _ = rows(messages)
        self._popular = self._most_popular()
        for event, partition, at in events(table):
            if at.offset >= self._begin and self._counts(event):
                self._ask(at.offset, event)
            if event.type == FORGET:
                self._answer()
            self._edges.apply(event, partition, at)
            self._always.learn(event)
            self._once.learn(event)
            self._own(event)
        self._answer()
        self._always.look()
        self._once.look()

    def _most_popular(self) -> List:
        """The popular list as of now, as long as serving keeps it."""
        return self._edges.popular(self._settings.top_k * TIMES_AS_LONG).items

    def _counts(self, event: Event) -> bool:
        """Whether an event is predicted; why others are left out is counted."""
        if event.type in (REMOVE, FORGET):
            self._left_out["removals"] += 1
        elif event.item_id in self._owned.get(event.user_id, ()):
            self._left_out["repeated"] += 1  # no list holds what the user has
        elif event.interaction * self._weighing.factor(event.type) <= 0:
            self._left_out["not_liked"] += 1
        else:
            return True
        return False

    def _ask(self, number: int, event: Event) -> None:
        self._of_new_items += event.item_id not in self._items
        owned = frozenset(self._owned.get(event.user_id, ()))
        asked = event.user_id, self._edges.told(event.user_id)
        self._waiting.append(Waiting(number, event.item_id, owned, asked))
        if len(self._waiting) == self._together:
            self._answer()

    def _answer(self) -> None:
        """Note where the lists of each event's moment had the items that were then taken."""
        asked = [each.asked for each in self._waiting]
        always, once = self._always.lists(asked), self._once.lists(asked)
        for each, mine, its in zip(self._waiting, always, once, strict=True):
            batch = self._batch.get(each.asked[0])
            lists = {
                "refresh_and_retrains": mine or self._popular,
                "retrains_alone": batch or self._popular_then,
                "refresh_alone": its or self._popular,
                "popularity": self._popular,
            }
            places = {way: rank(items, each.item, each.owned) for way, items in lists.items()}
            self._tally.note(each.number, batch is None, places)
        self._waiting.clear()

    def _own(self, event: Event) -> None:
        """Follow what each user has."""
        owned = self._owned.setdefault(event.user_id, set())
        if event.type == FORGET:
            owned.clear()
        elif event.type == REMOVE:
            owned.discard(event.item_id)
        else:
            owned.add(event.item_id)
            self._items.add(event.item_id)

    def _result(self) -> Figures:
        n = len(self._stream)
        return {
            "events": n,
            "from": self._begin,
            "retrain_every": self._every,
            "left_out": self._left_out,
            "of_new_items": self._of_new_items,
            **self._tally.by_group(),
            "trainings": self._trainings,
            "over_time": self._tally.over_time(self._begin, n),
        }


def _training(event: int, manifest: Manifest) -> Figures:
    return {
        "before_event": event,
        "edges": manifest.edges,
        "users": manifest.users,
        "items": manifest.items,
        "held_out": {name: round(value, 5) for name, value in manifest.metrics.items()},
        "chosen": {name: manifest.settings.get(name) for name in CHOSEN},
        "rejected": manifest.rejected,
    }
