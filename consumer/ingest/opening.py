"""How a consumer comes to its edge store: it opens one, and begins one only where it never had any.

A place that is empty although the group has committed offsets is a volume that is not mounted, or
a mistake. A new table there would be filled from the topic's start, and what Kafka no longer has
would be missing, so the consumer waits.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from consumer.edge.store import EdgeStore, StoreMissing
from consumer.edge.waiting import heals, store_outage
from consumer.kafka.client import AccessRefused, StreamError
from consumer.kafka.reach import broker_outage
from consumer.kafka.topics import group_offsets
from consumer.settings import ConsumerSettings
from process.retry import until_it_works


def open_store(settings: ConsumerSettings, stop: threading.Event, log: logging.Logger) -> EdgeStore:
    """The edge store, once it is there.

    Raises:
        AccessRefused: the broker does not let this process in.
        SettingsError: the place cannot hold a table, the object store does not let this process
            in, or the table belongs to another topic.
        Stopped: told to stop before it was there.
    """
    uri, topic, group = settings.edge_store, settings.kafka_topic, settings.kafka_group

    def open_or_begin() -> EdgeStore:
        try:
            return EdgeStore(uri, topic)
        except StoreMissing:
            ask = partial(group_offsets, settings, group)  # Kafka knows whether it had a store
            offsets = until_it_works(ask, kafka_heals, broker_outage(log), stop, "Kafka")
            if not offsets:
                return EdgeStore.begin(uri, topic)
            raise StoreMissing(
                f"there is no edge store at {uri}, although consumer group {group} has filled one: "
                "is a volume not mounted? `streamgcn new-edge-store` begins an empty one there, "
                "which is filled with what Kafka still has"
            ) from None

    def kafka_heals(error: BaseException) -> bool:
        return isinstance(error, StreamError) and not isinstance(error, AccessRefused)

    return until_it_works(open_or_begin, heals, store_outage(log), stop, "the edge store")
