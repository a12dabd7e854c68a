"""Serving processes that share the partitions: what they write together, one of them killed."""

import time
from functools import partial
from pathlib import Path

import pytest

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from serving.redis.store import Store
from tests.graphs import blocks, pairs
from tests.path.test_partitions import QUICK, promote
from tests.rooms import Rooms
from tests.services import wait_for
from tests.travellers import create_topic

PARTITIONS = 4
FOLLOWED = 15.0  # seconds after a kill within which other processes write the lists
GRAPH = blocks()
USERS = GRAPH.user_ids.values.to_pylist()


def publish(publisher: Publisher, topic: str, *pairs: tuple[str, str]) -> None:
    now = int(time.time() * 1000)
    for user, item in pairs:
        publisher.send(topic, encode(Event(user, item, 1.0, now, "view")), user.encode())
    publisher.flush()


def test_four_serving_processes_write_what_one_writes_also_when_one_is_killed(
    apache: str, redis_url: str, tmp_path: Path
) -> None:
    with Rooms(tmp_path, apache, redis_url, **QUICK) as rooms:
        topic = rooms.settings.kafka_topic
        create_topic(apache, topic, PARTITIONS)
        promote(rooms, "20260101T000000.0Z", order=1.0)
        alone = {"REDIS_PREFIX": f"{topic}-alone", "KAFKA_GROUP": f"{topic}-alone"}
        one = Store(redis_url, alone["REDIS_PREFIX"])
        rooms.start("consumer", "serving")
        servings = ["serving", *(rooms.start_another("serving") for _ in range(PARTITIONS - 1))]
        rooms.start_another("serving", **alone)
        for room in servings:
            wait_for("its partitions", partial(lambda r: "Holding" in rooms.log(r), room))
        publisher = Publisher(rooms.settings)
        edges = [(user, item) for user, item, *_ in pairs(GRAPH)]
        publish(publisher, topic, *edges, *((f"2-{n}", "brand new") for n in range(6)))

        def value(store: Store, user: str) -> tuple[list[str], list[str]] | None:
            found = store.user(user)
            return (found.items, found.because) if found else None

        def without_new(store: Store, user: str) -> list[tuple[str, str]]:
            """The best items and their reasons, but for the new item."""
            pairs = zip(*(value(store, user) or ([], [])), strict=True)
            return [pair for pair in pairs if pair[0] != "brand new"][:30]

        def all_have_lists() -> bool:
            return all(value(rooms.store, user) for user in USERS)

        def others() -> list[str]:
            return [user for user in USERS if value(rooms.store, user) != value(one, user)]

        def others_but_new() -> list[str]:
            old = [user for user in USERS if not user.startswith("2-")]
            return [
                user for user in old if without_new(rooms.store, user) != without_new(one, user)
            ]

        def popular_is_one() -> bool:
            """Items of equal counts may come in another order."""
            shared, alone = rooms.store.popular(), one.popular()
            if not shared or not alone:
                return False
            return sorted(shared.scores) == pytest.approx(sorted(alone.scores), rel=1e-3)

        wait_for("all lists", all_have_lists)
        wait_for("the new item's similar items", lambda: rooms.store.neighbors("brand new"))
        wait_for("the lists of one process", lambda: not others())
        wait_for("one popular list", popular_is_one)

        before = {user: one.user(user) for user in USERS}
        rooms.kill(servings[1])
        publish(publisher, topic, *((user, f"{(int(user[0]) + 1) % 4}-0") for user in USERS))

        def follows(store: Store) -> bool:
            """Whether each list is of the event that was sent after the kill."""
            found = ((store.user(user), before[user]) for user in USERS)
            return all(now and then and now.event_at > then.event_at for now, then in found)

        wait_for("lists of the last events", lambda: follows(rooms.store), FOLLOWED)
        wait_for("the other process's lists", lambda: follows(one))
        # The new item may be placed anew, by the edges that its users have now.
        wait_for("the lists of one process", lambda: not others_but_new(), FOLLOWED)
        wait_for("one popular list", popular_is_one, FOLLOWED)
        publisher.close()
        one.close()
