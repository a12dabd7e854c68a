"""Which block of lists is made next: of users with new events, of a publication, or of both.

A block is begun, its lists are made on other threads while the topic is read, and it is written
before anything newer is.
"""

from __future__ import annotations

import time

from serving.edges.user_edges import UserEdges
from serving.lists.recommender import Recommender
from serving.loop.due import DueUsers
from serving.loop.list_block import ListBlock
from serving.loop.popular import Popular
from serving.loop.publication import Publication
from serving.redis.errors import RedisDown
from serving.redis.store import Store

GATHER = 0.03  # seconds in which users become due together: a list alone costs as much as a dozen
# Where users with new events fill whole blocks, one block of so many is a publication's; and also
# where they fill none, while the lists of the publication are made one at a time.
TURNS = 4


class Blocks:
    """One block at a time.

    answered: lists that were written after events.
    """

    def __init__(
        self,
        store: Store,
        edges: UserEdges,
        due: DueUsers,
        publication: Publication,
        popular: Popular,
    ) -> None:
        self._store, self._edges, self._due = store, edges, due
        self._publication, self._popular = publication, popular
        self._block: ListBlock | None = None  # begun and not written
        self._is_of_publication = False  # the block is
        self._turn = 0
        self._live_at = 0.0  # when the last block of users with new events alone was begun
        self._begun_at = 0.0  # the block
        self._seconds: list[float] = []  # that each block took
        self.answered = 0

    @property
    def users(self) -> list[str]:
        """The users of the block that was begun."""
        return self._block.users if self._block else []

    def wait(self, recommender: Recommender) -> float:
        """Seconds until there is something to do; infinite if only an event can give it."""
        if self._block or self._publication.running or self._fills_block(recommender):
            return 0.0
        return self._gathering() if self._due else float("inf")

    def begin(self, recommender: Recommender) -> None:
        """Begin the next block, if there is something to write.

        Raises:
            RedisDown: nothing is begun.
        """
        self._due.wake()
        self._begun_at = time.monotonic()
        try:
            self._block = self._next(recommender)
        except RedisDown:
            raise
        except Exception:
            self._give_up()
            raise

    def write(self) -> None:
        """Write the block that was begun.

        Raises:
            RedisDown: call `give_back`, and begin it again.
        """
        block, self._block = self._block, None
        if not block:
            return
        try:
            block.write(self._store)
        except RedisDown:
            raise
        except Exception:
            self._give_up()
            raise
        self._seconds.append(time.monotonic() - self._begun_at)
        self.answered += self._due.answered()
        if self._is_of_publication:
            self._publication.written()

    def give_back(self) -> None:
        """The block is not written: its users stay due."""
        self._block = None
        self._due.give_back()

    def clear(self) -> list[str]:
        """Nothing is due: another process may write the lists of these users now.

        Returns:
            As `DueUsers.clear`.
        """
        self._block = None
        self._publication.drop()
        return self._due.clear()

    def take_seconds(self) -> list[float]:
        """Seconds from the begin of each block until it was written, since the last call."""
        seconds, self._seconds = self._seconds, []
        return seconds

    def _next(self, recommender: Recommender) -> ListBlock | None:
        full, publication = self._fills_block(recommender), self._publication
        self._is_of_publication = publication.running
        if self._is_of_publication:
            self._turn = (self._turn + 1) % TURNS
            # Lists of a publication that are made one at a time have no slots for others.
            first = full or (publication.careful and self._due and not self._gathering())
            if not first or not (self._turn or (full and publication.is_renewal)):
                return publication.next_block_or_end(self._popular.list, self._due.take)
            self._is_of_publication = False
        elif not full and (not self._due or self._gathering() > 0):
            return None
        self._live_at = time.monotonic()
        with_events = self._due.take(recommender.block_size)
        return ListBlock.begin(recommender, self._edges, self._popular.list, with_events)

    def _give_up(self) -> None:
        """Nobody knows which list of the block failed: each is tried alone."""
        self._due.failed()
        if self._is_of_publication:
            self._publication.failed()

    def _fills_block(self, recommender: Recommender) -> bool:
        """Whether users with new events fill a block."""
        return len(self._due) >= recommender.block_size

    def _gathering(self) -> float:
        """Seconds until the users with new events are answered."""
        return max(0.0, self._live_at + GATHER - time.monotonic())
