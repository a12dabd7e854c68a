"""Makes the client keep the consumer group's answer to a join that comes between two polls.

The client (kafka-python 3.0.12) joins on a thread of its own, and a poll that ends before the group
has answered leaves the join to the next poll. If the answer comes between the two, the client drops
the answer and joins once more. A group lets its first member wait for the others, 3 s by Kafka's
default, and a loop polls at a steady pace, so each later answer can come between two polls as well:
such a process was seen to join for minutes.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from kafka import KafkaConsumer
from kafka.coordinator.base import Generation, MemberState
from kafka.coordinator.consumer import ConsumerCoordinator


def keep_join_answers(client: KafkaConsumer) -> None:
    """Make a client keep the answers to its joins until a poll takes them."""
    client._coordinator.__class__ = _Coordinator


class _Answer(NamedTuple):
    generation: Generation  # of the group, with this member's id
    partitions: bytes  # encoded
    came_at: float  # time.monotonic()


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]  # the client has no types
    _answer: _Answer | None = None  # to the last join

    async def _do_join_and_sync_async(self) -> bytes:
        """The encoded partitions: those of the last answer if no poll has taken it yet."""
        if self._answer and self._is_open(self._answer):
            return self._answer.partitions  # kept, as this poll may end too early as well
        self._answer = None
        partitions: bytes = await super()._do_join_and_sync_async()
        self._answer = _Answer(self._generation, partitions, time.monotonic())
        return partitions

    def _is_open(self, answer: _Answer) -> bool:
        """Whether no poll has taken an answer, and the group still knows this member.

        A poll that takes the answer leaves the state REBALANCING. No heartbeat is sent in that
        state: after a session's time the group may have given the partitions to another member.
        """
        fresh = time.monotonic() - answer.came_at < self.config["session_timeout_ms"] / 2_000
        same = answer.generation == self._generation
        return fresh and same and self.state is MemberState.REBALANCING
