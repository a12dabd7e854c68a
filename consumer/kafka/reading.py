"""How a loop reads a topic: what it polls, and what it answers.

    polled = reader.poll(0.1)
    if polled.lost:
        drop everything that was made of messages and is not stored
    if polled.gained:
        reader.start_at({partition: offset for partition in polled.gained})
    for messages in polled.messages:
        take them

The consumer's starts are what the edge store holds, never Kafka's committed offsets; serving's are
the lower of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from consumer.kafka.client import Message


class Polled(NamedTuple):
    """What happened since the last poll, in the order in which the loop sees to it.

    lost: partitions that the loop reads no more. If there is any, it is all that the loop has; what
        this process still reads of them is in a later `gained`.
    gained: partitions that wait for `start_at`, told again until they are read or lost.
    messages: of partitions that are read; of each partition in order.
    """

    lost: Collection[int] = ()
    gained: Collection[int] = ()
    messages: Sequence[Sequence[Message]] = ()


class Reader(Protocol):
    """A member of a consumer group, as its loop sees it; `Subscription` is the real one."""

    topic_id: str | None  # of what is read; None where the broker gives topics no id

    def poll(self, seconds: float) -> Polled:
        """What was lost and gained, or else the next messages; waits `seconds` for the first.

        Raises:
            AccessRefused: a right is missing from the start; later it is waited for.
            StreamError: the broker refuses.
        """
        ...

    def start_at(self, starts: Mapping[int, int | None]) -> None:
        """Read partitions from now on, if nothing was lost since they were told as gained.

        Where the broker cannot be asked, or a partition ends before its start, it will be told as
        gained again.

        Args:
            starts: partition -> offset to begin at, None for the earliest.

        Raises:
            TopicShorter: for some time a partition has ended before its start.
        """
        ...

    def postpone(self, error: Exception) -> None:
        """The answer of a loop that does not know where to start; it will be asked again."""
        ...

    def restart(self) -> None:
        """Tell all partitions as gained once more. The loop has dropped everything."""
        ...

    def heartbeat(self) -> None:
        """Stay a member of the group without taking messages."""
        ...

    def is_same_log(self) -> bool:
        """Whether the topic is still the one that was read, and not one that was created anew.

        Asks the broker; where it does not answer, nothing speaks against it.
        """
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka how far the group is in this log; not waited for."""
        ...

    def committed(self, partition: int) -> int | None:
        """The offset that the group has committed in this log, None if there is none.

        Raises:
            StreamError: the broker does not answer.
        """
        ...

    def first(self, partition: int) -> int:
        """The offset at which the partition begins.

        Raises:
            StreamError: the broker does not answer.
        """
        ...

    def ends(self, offsets: Mapping[int, int]) -> dict[int, int]:
        """Where the topic's partitions end: partition -> offset; those of `offsets` for certain.

        Raises:
            StreamError: the broker does not answer.
        """
        ...

    def lag(self) -> int:
        """Messages of this member's partitions that were not polled yet, as the broker counts.

        A partition that waits for a start counts as it did before, or not at all if it is new.
        """
        ...

    def partitions(self) -> set[int]:
        """The partitions that this member has now, read or not."""
        ...

    @property
    def has_lost(self) -> bool:
        """Whether partitions were lost since the last poll; the next one tells which.

        A rebalance can happen in the middle of a poll or of a heartbeat.
        """
        ...

    @property
    def n_partitions(self) -> int:
        """Number of the topic's partitions, whoever reads them."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing comes from the broker; empty while it answers."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
