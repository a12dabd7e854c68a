"""Past one machine: each kind of process several times, all stores remote, one of each killed."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as confluent
import pytest

from consumer.edge.store import EdgeStore
from tests.graphs import stored
from tests.ranks import rank, trainers
from tests.rooms import Rooms
from tests.s3 import S3
from tests.services import redis_cluster, wait_for
from tests.travellers import create_topic
from trainer.lifecycle.snapshots import Snapshots

MANY = 4  # consumers, and serving processes
PARTITIONS = 8
BLOCKS, ITEMS = 20, 60  # of each block
USERS, TAKEN = 8_000, 25  # items that each user takes, all of one block
K = 10
BEGAN_MS = 1_790_000_000_000
SETTINGS = {
    "STREAMGCN_COMMIT_SECONDS": "2",  # the object store takes a second for a commit
    "STREAMGCN_MIN_EDGES": "20000",
    "STREAMGCN_RETRAIN_EDGES": "1",
    "STREAMGCN_EPOCHS": "2",
    "STREAMGCN_TOP_K": str(K),
}
MODEL = "dim = 16\nvectors = 32\nnegatives = 128\n"
MINUTES = 300.0  # seconds that the two cores of a small machine may take for a step of this test


class Taken(NamedTuple):
    """An event: its number tells its time."""

    number: int
    user: str
    item: str


def walks() -> list[Taken]:
    """Each user takes different items of the user's block; all users' events are mixed."""
    drawn = random.Random(7)
    pairs = [
        (f"{user % BLOCKS}-{user}", f"{user % BLOCKS}-{item}")
        for user in range(USERS)
        for item in drawn.sample(range(ITEMS), TAKEN)
    ]
    drawn.shuffle(pairs)
    return [Taken(number, *pair) for number, pair in enumerate(pairs)]


def publish(address: str, topic: str, events: Iterable[Taken]) -> None:
    """By librdkafka, which the product does not use; all have arrived on return."""
    lost: list[object] = []
    producer = confluent.Producer({"bootstrap.servers": address, "linger.ms": 20})

    def told(error: object, _: object) -> None:
        if error:
            lost.append(error)

    for event in events:
        value = {"user_id": event.user, "item_id": event.item, "timestamp": BEGAN_MS + event.number}
        while True:
            try:
                producer.produce(topic, json.dumps(value), event.user, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert not producer.flush(60)
    assert not lost


@pytest.mark.long
def test_edges_are_stored_once_and_all_lists_are_right_while_one_process_of_each_kind_is_killed(
    apache: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, model = s3.bucket(), tmp_path / "model.toml"
    model.write_text(MODEL)
    edges, models = f"s3://{bucket}/edges", f"s3://{bucket}/models"
    places = {"EDGE_STORE": edges, "MODEL_STORE": models, "STREAMGCN_MODEL_FILE": str(model)}
    (tmp_path / "redis").mkdir()
    events = walks()
    quarter = len(events) // 4
    with (
        redis_cluster(tmp_path / "redis") as nodes,
        Rooms(tmp_path, apache, nodes[0], **places, **SETTINGS, **s3.environment) as rooms,
    ):
        topic = rooms.settings.kafka_topic
        send = partial(publish, apache, topic)
        create_topic(apache, topic, PARTITIONS)
        rooms.start("consumer", "serving")
        others = [rooms.start_another(room) for room in ("consumer", "serving") * (MANY - 1)]
        for room in ("consumer", "serving", *others):
            wait_for(room, partial(lambda r: "Reading partitions" in rooms.log(r), room), MINUTES)
        snapshots = Snapshots(models)
        first, second = tmp_path / "trainers.log", tmp_path / "trainers 2.log"

        with trainers(rooms.env, first) as ranks:
            send(events[:quarter])
            wait_for("a training", lambda: "Training blend" in first.read_text(), MINUTES)
            os.kill(rank(ranks, 1), signal.SIGKILL)
            assert ranks.wait(MINUTES) != 0
        with trainers(rooms.env, second):
            send(events[quarter : 2 * quarter])
            rooms.kill("consumer")
            send(events[2 * quarter : 3 * quarter])
            wait_for("lists of a model", rooms.store.model, MINUTES)
            rooms.kill("serving")
            send(events[3 * quarter :])
            store = EdgeStore(edges, topic)
            wait_for("all rows", lambda: store.count() >= len(events), MINUTES)

            newest = {event.user: BEGAN_MS + event.number for event in events}
            late = set(newest)

            def are_new() -> bool:
                """Whether each user's list knows the user's newest event."""
                found = {user: rooms.store.user(user) for user in late}
                late.difference_update(
                    user for user, of in found.items() if of and of.event_at == newest[user]
                )
                return not late

            wait_for("the lists of all users", are_new, MINUTES)
            wait_for("a model of all edges", lambda: is_of_all(snapshots, len(events)), MINUTES)
            live = snapshots.marks.live()
            wait_for("its lists", lambda: rooms.store.model()["version"] == live, MINUTES)

            owned: dict[str, set[str]] = {}
            for event in events:
                owned.setdefault(event.user, set()).add(event.item)

            def wrong() -> list[str]:
                return [user for user in owned if not is_right(rooms, user, owned[user], live)]

            wait_for("the right lists of all users", lambda: not wrong(), MINUTES)
    rows = stored(store)
    found = zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True)
    assert sorted(found) == sorted((event.user, event.item) for event in events)
    assert first.read_text().count("another process of this training has ended, or") == 1
    logs = {file: file.read_text() for file in tmp_path.glob("*.log")}
    assert not [file for file, log in logs.items() if "fault of StreamGCN" in log]
    # torchrun itself ends by an exception.
    assert not [f for f in logs.keys() - {first, second} if "Traceback" in logs[f]]


def is_of_all(snapshots: Snapshots, edges: int) -> bool:
    live = snapshots.marks.live()
    return live is not None and snapshots.manifest(live).edges == edges


def is_right(rooms: Rooms, user: str, owned: set[str], live: str | None) -> bool:
    """Whether the user's list has K items of the user's block that the user has not taken."""
    found = rooms.store.user(user)
    if found is None or found.model != live:
        return False
    items = set(found.items)
    of_block = {item for item in items if item.split("-")[0] == user.split("-")[0]}
    return len(items) == K and not items & owned and items == of_block
