"""How a consumer comes to its edge store: it opens one, and begins one only where it never had any.

A place that is empty although the group has committed offsets is a volume that is not mounted, or
a mistake. A new table there would be filled from the topic's start, and what Kafka no longer has
would be missing, so the consumer waits.
"""

from __future__ import annotations

import logging
import threading

from consumer.edge.store import EdgeStore, StoreError, StoreMissing
from consumer.kafka.client import AccessRefused, StreamError
from consumer.kafka.reach import broker_outage
from consumer.kafka.topics import group_offsets
from consumer.settings import ConsumerSettings
from process.outage import Outage
from process.shutdown import Stopped


def open_store(settings: ConsumerSettings, stop: threading.Event, log: logging.Logger) -> EdgeStore:
    """The edge store, once it is there.

    Raises:
        SettingsError: the path cannot hold a table, or the table belongs to another topic.
        Stopped: told to stop before it was there.
    """
    away = Outage(log, "The edge store cannot be opened", "The edge store is open")
    no_kafka = broker_outage(log)  # which knows whether the group ever had a store
    while not stop.is_set():
        try:
            store = _opened_or_begun(settings)
        except AccessRefused:
            raise
        except StoreError as error:
            stop.wait(away.failed(error))
            continue
        except StreamError as error:
            stop.wait(no_kafka.failed(error))
            continue
        no_kafka.worked()
        away.worked()
        return store
    raise Stopped("waiting for the edge store")


def _opened_or_begun(settings: ConsumerSettings) -> EdgeStore:
    uri, group = settings.edge_store, settings.kafka_group
    try:
        return EdgeStore(uri, settings.kafka_topic)
    except StoreMissing:
        if group_offsets(settings, group):
            raise StoreMissing(
                f"there is no edge store at {uri}, although consumer group {group} has filled one: "
                "is a volume not mounted? `streamgcn new-edge-store` begins an empty one there, "
                "which is filled with what Kafka still has"
            ) from None
        return EdgeStore.begin(uri, settings.kafka_topic)
