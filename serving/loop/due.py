"""The users whose lists are due: where their first unanswered events are, how long these wait."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

NO_EVENT = -1
TRIES = 8  # of a list that fails alone,
AGAIN_SECONDS = 1.0  # twice as long, and so on, from one to the next
STAMPS = 100  # of a user's unanswered events that are kept, however long Redis is away


@dataclass
class _Due:
    partition: int
    offset: int  # of the first unanswered event
    arrived: list[int]  # Kafka timestamps of the unanswered events, epoch milliseconds


@dataclass
class _Aside:
    due: _Due
    again: float  # by the monotonic clock


class DueUsers:
    """In order of their first unanswered events."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Due] = {}
        self._taken: dict[str, _Due] = {}
        self._alone: set[str] = set()  # whose lists are made one at a time
        self._aside: dict[str, _Aside] = {}  # whose lists failed alone
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
        due = aside.due if aside else self._waiting.setdefault(user, _Due(partition, offset, []))
        if due.offset == NO_EVENT:
            due.partition, due.offset = partition, offset
        if len(due.arrived) < STAMPS:
            due.arrived.append(timestamp)

    def again(self, user: str, partition: int) -> None:
        """The user needs another list although there is no event that waits for it."""
        self._waiting.setdefault(user, _Due(partition, NO_EVENT, []))

    def read(self, partition: int, offset: int) -> None:
        """All events of the partition before this offset were added, if their users need it."""
        self._after[partition] = offset

    def take(self, n: int) -> list[str]:
        """At most n users whose lists are now made; an event from now on makes its user due again.

        Those who were taken before are answered or given back.
        """
        users = list(islice(self._waiting, n))
        if not self._alone.isdisjoint(users):
            users = [user for user in users if user in self._alone][:1]
        self._taken = {user: self._waiting.pop(user) for user in users}
        return users

    def answered(self) -> int:
        """The lists of those who were taken are written; returns how many they were."""
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
        """The lists of those who were taken are not written: they are the first to wait again."""
        for user, due in self._taken.items():
            if user in self._waiting:
                due.arrived = (due.arrived + self._waiting.pop(user).arrived)[:STAMPS]
        self._waiting, self._taken = self._taken | self._waiting, {}

    def doubt(self) -> None:
        """A list of those who were taken cannot be made, for a reason that nobody foresaw.

        Each is taken alone then. Whose list fails alone waits longer each time, and after TRIES it
        is left: the next event, or the next snapshot, makes its user due again.
        """
        if len(self._taken) > 1:
            self._alone |= self._taken.keys()
        else:
            for user, due in self._taken.items():
                self._alone.discard(user)
                tries = self._tries[user] = self._tries.get(user, 0) + 1
                if tries < TRIES:
                    again = time.monotonic() + AGAIN_SECONDS * 2.0**tries
                    self._aside[user] = _Aside(due, again)
                else:
                    del self._tries[user]
            self._taken.clear()
        self.give_back()

    def drop(self) -> None:
        """Nobody waits: the first publish writes all lists."""
        self._waiting.clear()

    def lose(self) -> None:
        """The partitions may be another process's now."""
        for each in (self._waiting, self._taken, self._after, self._alone, self._aside):
            each.clear()
        self._tries.clear()

    def offsets(self) -> dict[int, int]:
        """Partition -> offset up to where all events are answered; only of those read since."""
        answered = dict(self._after)
        aside = (each.due for each in self._aside.values())
        for due in (*self._waiting.values(), *self._taken.values(), *aside):
            if due.offset != NO_EVENT:
                answered[due.partition] = min(answered[due.partition], due.offset)
        return answered

    def told(self, answered: dict[int, int]) -> None:
        """These offsets need not be told again."""
        self._after = {p: offset for p, offset in self._after.items() if answered[p] < offset}

    def wake(self) -> None:
        """Those who were put aside for long enough wait again."""
        now = time.monotonic()
        for user in [user for user, aside in self._aside.items() if aside.again <= now]:
            self._waiting[user] = self._aside.pop(user).due
            self._alone.add(user)

    def take_delays(self) -> list[float]:
        """Seconds from events to their answers since the last call; without old events'."""
        delays, self._delays = self._delays, []
        return delays
