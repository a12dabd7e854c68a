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
from tests.services import redis_cluster, wait_for, wait_until_done
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
    "STREAMGCN_EPOCHS": "1",
    "STREAMGCN_TOP_K": str(K),
}
# The weights of the parts, which are not set here, are chosen. To choose all takes most of a
# training, and a trainer lets all other processes of a busy machine go first.
MODEL = """\
dim = 16
vectors = 32
negatives = 128
recency = 1.25
temperature = 0.15
learned_order = 1.0
learned_power = 0.0
low_pass_normalization = 0.5
low_pass_power = 0.2
low_pass_damping = 0.3
neighbors_user_power = 1.0
neighbors_own_power = 0.5
neighbors_item_power = 0.5
neighbors_pair_power = 1.0
transitions_decay = 0.8
transitions_backward = 0.5
transitions_own_power = 0.9
transitions_item_power = 0.35
"""
MINUTES = 400.0  # seconds in which a busy machine of two cores brings something forward


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
    assert not producer.flush(MINUTES)
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
            wait_until_done(lambda: unpublished(rooms, second), MINUTES)
            rooms.kill("serving")
            send(events[3 * quarter :])
            store = EdgeStore(edges, topic)
            wait_until_done(lambda: missing_rows(store, len(events)), MINUTES)
            newest = {event.user: BEGAN_MS + event.number for event in events}
            wait_until_done(lambda: some_of(late(rooms, newest)), MINUTES)
            wait_until_done(lambda: not_trained(snapshots, len(events), second), MINUTES)
            owned: dict[str, set[str]] = {}
            for event in events:
                owned.setdefault(event.user, set()).add(event.item)
            wait_until_done(lambda: some_of(wrong(rooms, owned, snapshots)), MINUTES)
    rows = stored(store)
    found = zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True)
    assert sorted(found) == sorted((event.user, event.item) for event in events)
    assert first.read_text().count("another process of this training has ended, or") == 1
    logs = {file: file.read_text() for file in tmp_path.glob("*.log")}
    assert not [file for file, log in logs.items() if "fault of StreamGCN" in log]
    # torchrun itself ends by an exception.
    assert not [f for f in logs.keys() - {first, second} if "Traceback" in logs[f]]


def unpublished(rooms: Rooms, log: Path) -> str:
    return "" if rooms.store.model() else f"lists of a model; {end_of(log)}"


def missing_rows(store: EdgeStore, events: int) -> str:
    rows = store.count()
    return f"{rows} rows of {events}" if rows < events else ""


def late(rooms: Rooms, newest: dict[str, int]) -> list[str]:
    """The users whose lists do not know the newest event, which was at this time."""
    users = list(newest)
    known = zip(users, rooms.store.event_times(users), strict=True)
    return [f"the list of {user} is as of {at}" for user, at in known if at != newest[user]]


def not_trained(snapshots: Snapshots, edges: int, log: Path) -> str:
    """Whether the live model is not of all edges, and what the trainers said last."""
    live = snapshots.marks.live()
    if live is not None and snapshots.manifest(live).edges == edges:
        return ""
    return f"a model of all edges; {end_of(log)}"


def end_of(log: Path) -> str:
    return f"the trainers' log ends with {log.read_text()[-200:]!r}"


def wrong(rooms: Rooms, owned: dict[str, set[str]], snapshots: Snapshots) -> list[str]:
    """The users whose lists are not of the live model, or not K other items of the user's block."""
    live, found = snapshots.marks.live(), []
    for user, items in owned.items():
        made = rooms.store.user(user)
        right = made and made.model == live and is_right(user, set(made.items), items)
        if not right:
            found.append(f"the list of {user} is {made}")
    return found


def some_of(lists: list[str]) -> str:
    return f"{len(lists)} lists, such as: {'; '.join(lists[:3])}" if lists else ""


def is_right(user: str, items: set[str], owned: set[str]) -> bool:
    """Whether these are K items of the user's block that the user has not taken."""
    block = user.split("-")[0]
    return len(items) == K and not items & owned and {i.split("-")[0] for i in items} == {block}
