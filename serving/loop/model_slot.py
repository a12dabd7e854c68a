"""The model in use, and the next one, which is looked for and loaded on a thread of its own.

Lists are made from the model in use until the next one is put in its place, between two blocks of
lists. So events are answered while a model is loaded, and while an object store does not answer,
however long that takes.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from consumer.event.json import Event
from serving.edges.strangers import Strangers
from serving.edges.user_edges import UserEdges
from serving.items.new_items import NewItems
from serving.items.shared_likers import Liker
from serving.lists.recommender import Recommender
from serving.loop.forgetting import Forgetting
from serving.loop.user_rows import UserRows
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Snapshot, StoreAway
from trainer.memory import trim

AT_ONCE = 0.02  # seconds in which a folder says which model is live
NEW_ITEMS_EVERY = 1.0  # seconds between two looks at items that the model has not seen


class ModelSlot:
    """What stands in it makes the lists.

    recommender: of the model in use, None before the first; awaited: whether there is a model at
    all, in use or to be loaded, or nobody knows yet.
    """

    def __init__(
        self, live: LiveModel, prepare: Callable[[Snapshot], Recommender], edges: UserEdges,
        forgetting: Forgetting, log: logging.Logger,
    ) -> None:  # fmt: skip
        """`prepare`: makes a snapshot ready for use; called on the thread."""
        self._live, self._prepare, self._edges = live, prepare, edges
        self._forgetting, self._log = forgetting, log
        self.recommender: Recommender | None = None
        self.awaited = True
        self._new_items: NewItems | None = None
        self._folded_at = 0.0
        self._thread = ThreadPoolExecutor(1, "model")
        self._looking: Future[str | None] | None = None
        self._loading: Future[Recommender | None] | None = None
        self._begun_at = 0.0
        self._forgotten: set[str] = set()  # digests of users whom the model that is loaded forgets
        self._rows = UserRows(edges)

    @property
    def version(self) -> str:
        """The version of the model in use; empty before the first."""
        return self.recommender.model.version if self.recommender else ""

    def step(self) -> bool:
        """Put a model in place that is loaded, and have one loaded that has gone live.

        Returns:
            Whether another model than before is in use now.
        """
        if self._loading:
            if not self._loading.done():
                return False
            loading, self._loading = self._loading, None
            loaded = loading.result()
            if loaded:
                self._put_in_place(loaded)
            return loaded is not None
        if not self._looking:
            self._looking = self._thread.submit(self._live.version)
            wait([self._looking], AT_ONCE)
        if not self._looking.done():
            return False
        looked, self._looking = self._looking, None
        live = looked.result()
        self.awaited = live is not None or self._live.unknown
        again = self.recommender is not None and self._rows.are_due(self.recommender.model)
        if live and (live != self.version or again):
            self._begun_at = time.monotonic()
            self._forgotten = self._forgetting.digests
            own, in_use = self._rows.begin(), "" if again else self.version
            self._loading = self._thread.submit(self._load, in_use, self._forgotten, own)
        return False

    @property
    def has_rows(self) -> bool:
        """As `UserRows.are_of_held`."""
        return not self.recommender or self._rows.are_of_held(self.recommender.model)

    def note_lists(self, users: Collection[str]) -> None:
        """Lists of these users are made from the model in use now."""
        if self.recommender:
            self._rows.note_lists(self.recommender.model, users)

    def take_here(self) -> set[str]:
        """As `UserRows.take_here`."""
        return self._rows.take_here()

    def tell(self) -> list[Liker]:
        """Users of this process who like new items, for the other processes."""
        return self._new_items.tell() if self._new_items else []

    def hear(self, likers: Sequence[Liker], newest: int) -> None:
        """What other processes have told of their users; as `NewItems.hear`."""
        if self._new_items:
            self._new_items.hear(likers, newest)

    def note(self, event: Event) -> None:
        """Take note of an event that is in the edges already: its item may be new."""
        if self._new_items:
            self._new_items.note(event)

    def forget(self, user: str) -> None:
        """Drop what the model has learned of a user who is forgotten."""
        if self.recommender:
            self.recommender.model.forget(user)

    def find_new_items(self) -> None:
        """Look for new items in edges that came from the edge store."""
        if self._new_items:
            self._new_items.find()

    def use_other_edges(self) -> None:
        """The edges are those of another edge store than before."""
        if self.recommender:
            self._edges.dampen(self.recommender.model.trained.dampened)
            self._new_items = NewItems(self.recommender.model, self._edges)

    def fold_new_items(self) -> list[int]:
        """Make new items recommendable, by the users who like them; returns their numbers."""
        if not self._new_items or not self.recommender:
            return []
        if time.monotonic() - self._folded_at < NEW_ITEMS_EVERY:
            return []
        self._folded_at = time.monotonic()
        numbers = self._new_items.fold()
        if numbers:
            self.recommender.renew(numbers)
        return numbers

    def close(self) -> None:
        """What the thread still loads is of no use."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self, in_use: str, forgotten: set[str], own: set[str] | None) -> Recommender | None:
        """On the thread: the live model; None if there is none or it is in use.

        Args:
            own: users who are held here; None for all. The rows of other processes' users are of
                no use.
        """
        left_out = Strangers()

        def read(version: str) -> Snapshot:
            nonlocal left_out
            left_out = Strangers()
            return self._live.snapshots.read(version, self._rows.share(own, left_out))

        try:
            snapshot = self._live.read(read)
        except StoreAway:
            return None  # it is tried again
        if snapshot is None or snapshot.manifest.version == in_use:
            return None
        recommender = self._prepare(snapshot)
        recommender.model.left_out = left_out
        recommender.model.forget_digests(forgotten)
        return recommender

    def _put_in_place(self, recommender: Recommender) -> None:
        model = recommender.model
        model.forget_digests(self._forgetting.digests - self._forgotten)  # forgotten meanwhile
        self._edges.dampen(model.trained.dampened)
        self._new_items = NewItems(model, self._edges)
        self.recommender = recommender
        self._rows.put_in_place(model)
        self._log.info(
            "New lists are made from model %s; loading it took %.1f s.",
            model.version, time.monotonic() - self._begun_at,
        )  # fmt: skip
        gc.collect(1)  # what is young garbage now would stay for ever once it is frozen
        gc.freeze()  # ids and numbers by the million; to look through them took most of the time
        self._thread.submit(trim)  # the files that were read, and the model before
