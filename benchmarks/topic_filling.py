"""Fills a topic with drawn events, as JSON and as bulk messages."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from consumer.event import arrow as bulk
from consumer.kafka.publisher import Publisher, partition_of
from consumer.settings import ConsumerSettings

PARTITIONS = 4
USERS, ITEMS = 60_000, 20_000
ROWS = 10_000  # of a bulk message


def fill_json(settings: ConsumerSettings, events: int) -> None:
    """JSON events of about 90 bytes, keyed by user."""
    publisher, draw = Publisher(settings), random.Random(1)
    for n in range(events):
        user = b"u%d" % draw.randrange(USERS)
        value = b'{"user_id":"%s","item_id":"i%d","interaction":1.0,"timestamp":%d,"type":"view"}'
        value %= (user, draw.randrange(ITEMS), 1_764_022_200_000 + n)
        publisher.send(settings.kafka_topic, value, user)
        if n % 50_000 == 0:
            publisher.flush()
    publisher.flush()
    publisher.close()


def fill_bulk(settings: ConsumerSettings, events: int) -> None:
    """The same events as Arrow messages."""
    publisher, draw = Publisher(settings), np.random.default_rng(1)
    users = [f"u{n}" for n in range(USERS)]
    of = np.array([partition_of(user.encode(), PARTITIONS) for user in users])
    mine = [np.flatnonzero(of == p) for p in range(PARTITIONS)]
    names = pa.array(users)
    for n in range(events // ROWS):
        partition = n % PARTITIONS
        table = pa.table(
            {
                "user_id": names.take(pa.array(draw.choice(mine[partition], ROWS))),
                "item_id": [f"i{item}" for item in draw.integers(0, ITEMS, ROWS).tolist()],
                "interaction": np.ones(ROWS),
                "timestamp": 1_764_022_200_000 + n * ROWS + np.arange(ROWS),
                "type": pa.array(["view"] * ROWS),
            }
        )
        publisher.send(settings.kafka_topic, bulk.encode(table), None, bulk.HEADERS, partition)
        if n % 20 == 0:
            publisher.flush()
    publisher.flush()
    publisher.close()
