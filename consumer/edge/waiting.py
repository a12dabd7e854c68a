"""Waiting for an edge store that is away, or that a consumer has not begun yet."""

from __future__ import annotations

import logging
import threading

from consumer.edge.store import EdgeStore, StoreError
from process.outage import Outage
from process.retry import until_it_works
from process.settings import SettingsError


def wait_for_store(uri: str, topic: str, stop: threading.Event, log: logging.Logger) -> EdgeStore:
    """Open the edge store, waiting for its place to be there, and for a consumer to begin it.

    Raises:
        SettingsError: the place cannot hold a table, the object store does not let this process
            in, or the table belongs to another topic.
        Stopped: told to stop before it was.
    """

    return until_it_works(
        lambda: EdgeStore(uri, topic), heals, store_outage(log), stop, "the edge store"
    )


def heals(error: BaseException) -> bool:
    """Whether waiting can mend an error of a store that is opened for the first time."""
    return isinstance(error, StoreError) and not isinstance(error, SettingsError)


def store_outage(log: logging.Logger) -> Outage:
    """What is said of an edge store that cannot be opened."""
    return Outage(log, "The edge store cannot be opened", "The edge store is open")
