"""A join of the consumer group counts also where the group answers between two polls.

The client (kafka-python 3.0.12) joins on a thread of its own, and a poll that ends before the group
has answered leaves the join to the next poll. If the answer comes between the two, the client drops
the answer and joins once more. A group lets its first member wait for the others, 3 s by Kafka's
default, and a loop polls at a steady pace, so each later answer can come between two polls as well:
such a process was seen to join for minutes.
"""

from __future__ import annotations

from kafka import KafkaConsumer
from kafka.coordinator.base import Generation, MemberState
from kafka.coordinator.consumer import ConsumerCoordinator


def keep_joins(client: KafkaConsumer) -> None:
    """Let a client drop no answer to a join."""
    client._coordinator.__class__ = _Coordinator


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]  # the client has no types
    _answer: tuple[Generation, bytes] | None = None  # of the last join: who we are, what is ours

    async def _do_join_and_sync_async(self) -> bytes:
        """The partitions that the group gives, encoded; of the last join if no poll has seen it."""
        answer, self._answer = self._answer, None
        # A poll that sees the answer leaves this state, and so does all that makes the answer void.
        if answer and self.state is MemberState.REBALANCING and answer[0] == self._generation:
            return answer[1]
        partitions: bytes = await super()._do_join_and_sync_async()
        self._answer = self._generation, partitions
        return partitions
