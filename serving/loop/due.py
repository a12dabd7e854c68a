"""The users whose lists are due: where their first unanswered events are, how long these wait.

An event is answered when its user's new list is in Redis.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

NO_EVENT = -1
MOST_TRIES = 8  # of a list that fails alone
LONGEST_HOLD = 10.0  # seconds for which a list waits for edges of the user that are not here
FIRST_WAIT = 1.0  # seconds before a list that failed alone is tried again; doubled each time
MOST_ARRIVALS = 100  # of a user's unanswered events that are kept, however long Redis is away


@dataclass
class _Waiting:
    partition: int
    offset: int  # of the first unanswered event
    arrived: list[int]  # Kafka timestamps of the unanswered events, epoch milliseconds


@dataclass
class _PutAside:
    due: _Waiting
    until: float  # by the monotonic clock
    alone: bool  # whether the list is made alone then


class DueUsers:
    """Users wait in the order of their first unanswered events, until they are taken."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._taken: dict[str, _Waiting] = {}
        self._alone: set[str] = set()  # whose lists are made one at a time
        self._aside: dict[str, _PutAside] = {}  # whose lists failed alone, or wait for edges
        self._tries: dict[str, int] = {}  # of lists that failed alone
        self._after: dict[int, int] = {}  # partition -> offset after the newest event
        self._delays: list[float] = []  # seconds from events to their answers
        self._started_ms = time.time() * 1000

    def __len__(self) -> int:
        """Users who wait and are not taken."""
        return len(self._waiting)

    def add(self, user: str, partition: int, offset: int, timestamp: int) -> None:
        """An event of the user, with Kafka's timestamp in epoch milliseconds."""
        aside = self._aside.get(user)
        new = _Waiting(partition, offset, [])
        due = aside.due if aside else self._waiting.setdefault(user, new)
        if due.offset == NO_EVENT:
            due.partition, due.offset = partition, offset
        if len(due.arrived) < MOST_ARRIVALS:
            due.arrived.append(timestamp)

    def add_without_event(self, user: str, partition: int) -> None:
        """The user needs another list although there is no event that waits for it."""
        aside = self._aside.get(user)
        if aside and not aside.alone:
            del self._aside[user]
            self._waiting[user] = aside.due
            return
        self._waiting.setdefault(user, _Waiting(partition, NO_EVENT, []))

    def hold_back(self, user: str) -> None:
        """The user's list waits for edges that are not here yet, but not for long.

        `add_without_event` ends that.
        """
        if due := self._waiting.pop(user, None):
            self._aside[user] = _PutAside(due, time.monotonic() + LONGEST_HOLD, alone=False)

    def have_read(self, partition: int, offset: int) -> None:
        """All events of the partition before this offset were added, if their users need it."""
        self._after[partition] = offset

    def take(self, n: int) -> list[str]:
        """At most n users whose lists are now made; an event from now on makes its user due again.

        Users who were taken before are answered, failed or given back by now.
        """
        users = list(islice(self._waiting, n))
        if not self._alone.isdisjoint(users):
            users = [user for user in users if user in self._alone][:1]
        self._taken = {user: self._waiting.pop(user) for user in users}
        return users

    def answered(self) -> int:
        """The lists of the users who were taken are written; returns how many they were."""
        now = time.time() * 1000
        taken = set(self._taken)
        for due in self._taken.values():
            self._delays += [(now - at) / 1000 for at in due.arrived if at >= self._started_ms]
        answered, self._taken = len(self._taken), {}
        self._alone -= taken
        for user in taken & self._tries.keys():
            del self._tries[user]
        return answered

    def give_back(self) -> None:
        """The lists of the users who were taken are not written: they are the next to be taken."""
        for user, due in self._taken.items():
            if since := self._waiting.pop(user, None):
                if due.offset == NO_EVENT:
                    due.partition, due.offset = since.partition, since.offset
                due.arrived = (due.arrived + since.arrived)[:MOST_ARRIVALS]
        self._waiting, self._taken = self._taken | self._waiting, {}

    def failed(self) -> None:
        """A list of the users who were taken cannot be made, for a reason that nobody foresaw.

        Each of them is taken alone then. A user whose list fails alone waits longer each time, and
        is left after MOST_TRIES: the next event, or the next model, makes the user due again.
        """
        if len(self._taken) > 1:
            self._alone |= self._taken.keys()
        else:
            for user, due in self._taken.items():
                self._alone.discard(user)
                tries = self._tries[user] = self._tries.get(user, 0) + 1
                if tries < MOST_TRIES:
                    until = time.monotonic() + FIRST_WAIT * 2.0 ** (tries - 1)
                    self._aside[user] = _PutAside(due, until, alone=True)
                else:
                    del self._tries[user]
            self._taken.clear()
        self.give_back()

    def drop(self) -> None:
        """Nobody waits: the first publication writes all lists."""
        self._waiting.clear()

    def clear(self) -> list[str]:
        """Nobody waits: the partitions may be another process's now.

        Returns:
            The users who were due without an event: nothing that is read again makes them due.
        """
        aside = {user: each.due for user, each in self._aside.items()}
        due = (self._waiting | self._taken | aside).items()
        without_event = [user for user, each in due if each.offset == NO_EVENT]
        for each in (self._waiting, self._taken, self._after, self._alone, self._aside):
            each.clear()
        self._tries.clear()
        return without_event

    def offsets(self) -> dict[int, int]:
        """Partition -> offset up to where all events are answered, to be committed to Kafka."""
        answered = dict(self._after)
        aside = (each.due for each in self._aside.values())
        for due in (*self._waiting.values(), *self._taken.values(), *aside):
            if due.offset != NO_EVENT:
                answered[due.partition] = min(answered[due.partition], due.offset)
        return answered

    def committed(self, answered: dict[int, int]) -> None:
        """Kafka has these offsets, so they need not be committed again."""
        self._after = {p: offset for p, offset in self._after.items() if answered[p] < offset}

    def wake(self) -> None:
        """Users who were put aside for long enough wait again."""
        now = time.monotonic()
        for user in [user for user, aside in self._aside.items() if aside.until <= now]:
            aside = self._aside.pop(user)
            self._waiting[user] = aside.due
            if aside.alone:
                self._alone.add(user)

    def take_delays(self) -> list[float]:
        """Seconds from each event to its answer, since the last call; without events from before
        the start of this process.
        """
        delays, self._delays = self._delays, []
        return delays
