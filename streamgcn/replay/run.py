"""The replay itself: each event is predicted from the list of that moment, then learned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from consumer.edge.store import EdgeStore
from consumer.event.json import FORGET, REMOVE, Event
from consumer.ingest.decode import events, rows
from serving.settings import ServingSettings
from streamgcn.replay.figures import Figures, Tally, rank
from streamgcn.replay.learner import Learner
from streamgcn.replay.served import List, Served
from streamgcn.replay.stream import Stream, spans
from trainer.fit.check import NothingJoined
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

WAYS = ("refresh_and_retrains", "retrains_alone", "refresh_alone", "popularity")
BLOCK = 100  # events between two looks at new items and at what is popular
CHOSEN = (
    "recency", "transitions_weight", "neighbors_weight", "low_pass_weight", "learned_weight",
    "learned_order",
)  # fmt: skip


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
        self._tally = Tally(WAYS)
        self._trainings: list[Figures] = []
        self._left_out = dict.fromkeys(("repeated", "not_liked", "removals"), 0)
        self._of_new_items = 0
        self._owned: dict[str, set[str]] = {}  # by user, as of now
        self._items: set[str] = set()  # that anybody has taken
        self._batch: dict[str, List] = {}  # lists of the last training
        self._popular: List = []  # as of now, and at the last training
        self._popular_then: List = []
        self._waiting: list[tuple[int, Event, frozenset[str]]] = []

    def run(self, advance: Callable[[int], None]) -> Figures:
        """Play the log to its end; `advance` is told how many events are done.

        Raises:
            NothingToLearn (but not NothingJoined), Diverged, DeviceMissing: as a training.
        """
        n = len(self._stream)
        cuts = set(range(self._begin, n, self._every))
        with tempfile.TemporaryDirectory(prefix="streamgcn-") as folder:
            learner = Learner(Path(folder), self._hyperparameters, self._weighing)
            self._always = Served(self._settings, learner.log, self._threads)
            self._once = Served(self._settings, learner.log, self._threads)
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
            self._take_up(live, learner.store)
        users = [user for user in self._stream.users(first, last) if self._owned.get(user)]
        self._always.ask(users)
        self._batch = dict(zip(users, self._always.answers(), strict=True))
        self._popular_then = self._always.popular()

    def _take_up(self, live: Snapshot, store: EdgeStore) -> None:
        if self._once.ready:
            self._once.grow(store)
        else:
            self._once.take_up(live, store)
        self._always.take_up(live, store)

    def _play(self, learner: Learner, first: int, last: int) -> None:
        messages = self._stream.messages(first, last)
        learner.take(messages)
        table, _ = rows(messages)
        self._popular = self._always.popular()
        for event, partition, at in events(table):
            if at.offset >= self._begin and self._counts(event):
                self._ask(at.offset, event)
            self._always.learn(event, partition, at)
            self._once.learn(event, partition, at)
            self._own(event)
        self._answer()
        self._always.look()
        self._once.look()

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
        self._waiting.append((number, event, frozenset(self._owned.get(event.user_id, ()))))
        self._always.ask([event.user_id])
        self._once.ask([event.user_id])
        if len(self._waiting) == self._together:
            self._answer()

    def _answer(self) -> None:
        """Note where the lists of this moment had the items that were then taken."""
        always, once = self._always.answers(), self._once.answers()
        for (number, event, owned), mine, its in zip(self._waiting, always, once, strict=True):
            batch = self._batch.get(event.user_id)
            lists = {
                "refresh_and_retrains": mine or self._popular,
                "retrains_alone": batch or self._popular_then,
                "refresh_alone": its or self._popular,
                "popularity": self._popular,
            }
            wanted = event.item_id
            places = {way: rank(items, wanted, owned) for way, items in lists.items()}
            self._tally.note(number, batch is None, places)
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
