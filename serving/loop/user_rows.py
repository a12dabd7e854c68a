"""The rows of users in the model, where it has any: those of other processes' users are left out.

Who comes here with a partition, or by a key that moved, has no row in the model in use until the
model was read again. Lists that are made meanwhile are made as those of new users, and once more
when the rows are here.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from serving.edges.steps import Held
from serving.edges.strangers import Strangers
from serving.edges.user_edges import UserEdges
from serving.items.served_model import ServedModel, has_rows
from trainer.graph.arrays import Bools
from trainer.lifecycle.parts import Share

AGAIN_AFTER = 2.0  # seconds from one reading of a model to the next for single users, at least,
TIMES_AS_LONG = 10.0  # and this many times as long as the last one took


class UserRows:
    """Of the model in use, and of the one that is being loaded."""

    def __init__(self, edges: UserEdges) -> None:
        self._edges = edges
        self._held: Held = None  # the partitions whose users' rows the model in use has
        self._lacking: set[str] = set()  # users whose lists were made without their rows
        self._begun: tuple[Held, set[str]] = None, set()  # what these were for the next model
        self._begun_at = self._again_at = 0.0
        self._here: set[str] = set()

    def are_of_held(self, model: ServedModel) -> bool:
        """Whether the model has the rows of all users who came with the partitions held here; it
        may have others."""
        if not has_rows(model.trained):
            return True
        held = self._edges.held
        return self._held is None or (held is not None and held <= self._held)

    def are_due(self, model: ServedModel) -> bool:
        """Whether the model is to be read again."""
        if not has_rows(model.trained) or self._edges.held == frozenset():
            return False
        single = bool(self._lacking) and time.monotonic() >= self._again_at
        return single or self._held != self._edges.held  # it has too few, or some of no use here

    def begin(self) -> set[str] | None:
        """A model is read from now on; returns the users who are held here, None if all are, or if
        that is not known yet."""
        held = self._edges.held or None
        self._begun = held, set(self._lacking)
        self._begun_at = time.monotonic()
        return None if held is None else set(self._edges.users())

    def share(self, own: set[str] | None, left_out: Strangers) -> Share:
        """On the thread: whose rows of a model are read, a part of all users at a time.

        Args:
            left_out: other processes' users, whose rows are not, are put in.
        """

        def keep(ids: pa.Array) -> Bools:
            strangers = self._edges.strangers(ids.to_pylist())
            others = [user for user in strangers if user not in (own or ())]
            left_out.add(others)
            gone = pc.is_in(ids, value_set=pa.array(others, pa.string()))
            kept: Bools = ~gone.to_numpy(zero_copy_only=False)
            return kept

        return Share(keep=None if own is None else keep, with_rows=True)

    def put_in_place(self, model: ServedModel) -> None:
        """The model that was read is the one in use."""
        self._held, lacking = self._begun
        since = self._lacking - lacking
        self._here |= self._lacking
        self._lacking = set(model.left_out.among(since))
        now = time.monotonic()
        self._again_at = now + max(AGAIN_AFTER, TIMES_AS_LONG * (now - self._begun_at))

    def note_lists(self, model: ServedModel, users: Collection[str]) -> None:
        """Lists of these users are made now."""
        lacks = model.left_out.among(users) if self.are_of_held(model) else users
        self._lacking.update(lacks)

    def take_here(self) -> set[str]:
        """Users whose lists were made without the rows that the model in use has now."""
        here, self._here = self._here, set()
        return here
