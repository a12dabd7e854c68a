"""Many writers commit to one table: who was overtaken waits a moment and tries again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from consumer.edge.table import Conflict, Overtaken

TRIES = 20
# Each wait is drawn from 0 to a limit that doubles, so that those that met once do not meet again.
FIRST_SECONDS, LONGEST_SECONDS = 0.05, 1.0

Result = TypeVar("Result")


class Conflicts:
    """What one handle of the store has met; count: commits that another writer's was before."""

    def __init__(self) -> None:
        self.count = 0

    def try_again(self, commit: Callable[[], Result], met: type[Conflict] = Overtaken) -> Result:
        """What `commit` returns, which reads the table anew each time.

        Raises:
            Conflict: of the kind `met`, at the last try.
            StoreError, Fenced: as `commit` raises them.
        """
        return Retrying(
            retry=retry_if_exception_type(met),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(FIRST_SECONDS, LONGEST_SECONDS),
            after=self._count,
            reraise=True,
        )(commit)

    def _count(self, _: RetryCallState) -> None:
        self.count += 1
