"""Two serving processes share the users; when one dies the other has them all."""

import time
from functools import partial
from pathlib import Path

import numpy as np

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from tests.path.test_path import QUICK
from tests.rooms import Rooms
from tests.services import wait_for


def test_when_one_of_two_serving_processes_is_killed_the_other_follows_its_users_too(
    kafka: str, redis_url: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rooms = Rooms(tmp_path, kafka, redis_url, STREAMGCN_TOP_K="5", **QUICK)
    users = [f"{block}-{n}" for block in "xyz" for n in range(40)]
    with rooms:
        rooms.start("consumer", "trainer", "serving")
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        publisher = Publisher(rooms.settings)

        def touch(user: str, item: str) -> None:
            event = Event(user, item, 1.0, int(time.time() * 1000), "view")
            publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())

        def first_items() -> dict[str, str]:
            return {user: items[0] for user in users if (items := rooms.items(user))}

        def touch_the_first_of_each() -> None:
            """And wait until no list has it any more."""
            first = first_items()
            for user, item in first.items():
                touch(user, item)
            publisher.flush()
            for user, item in first.items():
                left = partial(lambda user, item: item not in rooms.items(user), user, item)
                wait_for(f"{item} to leave the list of {user}", left)

        for user in users:
            for item in rng.choice(30, 10, replace=False):
                touch(user, f"{user[0]}-{item}")
        publisher.flush()
        wait_for("all lists", lambda: rooms.store.model() and len(first_items()) == len(users))
        other = rooms.start_another("serving")
        wait_for("the other to share the users", lambda: "Reading partitions" in rooms.log(other))
        touch_the_first_of_each()

        rooms.kill(other)
        touch_the_first_of_each()
        publisher.close()
