"""A loop's way to read a subscription, for tests that have no loop."""

from __future__ import annotations

from collections.abc import Mapping

from consumer.kafka.client import Message
from consumer.kafka.subscription import Subscription


def read(subscription: Subscription, starts: Mapping[int, int] | None = None) -> list[Message]:
    """Messages of one poll; each gained partition is read from `starts`, or from the earliest."""
    polled = subscription.poll(0.1)
    subscription.start_at({partition: (starts or {}).get(partition) for partition in polled.gained})
    return [message for messages in polled.messages for message in messages]
