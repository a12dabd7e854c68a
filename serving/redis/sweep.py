"""A walk over all users who have a list, a step at a time, which deletes some of the lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.redis.commands import Cursor
from serving.redis.store import Store

Choose = Callable[[Sequence[str]], Sequence[str]]


class Sweep:
    """One walk; millions of keys are many steps, between which there is time for all else."""

    def __init__(self, store: Store, choose: Choose) -> None:
        """`choose`: of some users who have a list, those whose lists are to be deleted."""
        self._store, self._choose = store, choose
        self._cursor: Cursor | None = None

    def step(self) -> bool:
        """Look at some more lists; returns whether there are more to look at.

        Raises:
            RedisDown: the step is to be done again.
        """
        users, cursor = self._store.users_after(self._cursor)
        self._store.delete_users(self._choose(users))
        self._cursor = cursor
        return cursor is not None
