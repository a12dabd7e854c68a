"""What must be right after a soak (soak.py)."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from consumer.edge.schema import KEEP_REPLACED_HOURS
from consumer.edge.store import EdgeStore
from serving.redis.contract import Recommendations
from serving.redis.errors import RedisDown
from tests.graphs import stored
from tests.producers import log_of
from tests.rooms import Rooms
from tests.services import wait_for
from trainer.lifecycle.marks import LIVE
from trainer.lifecycle.pruning import ABANDONED_AFTER, NEWEST, WERE_LIVE, prune
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import VERSION

ROOMS = ("consumer", "trainer", "serving")
GROUPS, OF_GROUP = 12, 10  # each user u0, u1, ... touches the items of one group alone
GROWTH, SLACK = 1.25, 64e6  # a process may have so many times the memory of before, and more bytes
FRESH = 1.0  # seconds in which the list of a newcomer is there
ENOUGH = 200  # newcomers; among fewer the slowest of 100 is one or two of them
LATER = 2 * max(ABANDONED_AFTER, KEEP_REPLACED_HOURS * 3_600)  # seconds
OF_A_LOG = re.compile(r"_delta_log(/_last_checkpoint|/\d{20}\.(json|checkpoint\.parquet))?")


def list_of(rooms: Rooms, user: str) -> Recommendations | None:
    """The user's list; None also while Redis is away."""
    try:
        return rooms.store.user(user)
    except RedisDown:
        return None


def check_edges(rooms: Rooms, kafka: str) -> None:
    """The edge store has each message of the topic, and each once."""
    published = log_of(kafka, rooms.settings.kafka_topic)
    store = EdgeStore(rooms.settings.edge_store, rooms.settings.kafka_topic)
    wait_for("all rows", lambda: store.count() >= len(published))
    rows = stored(store)
    places = list(
        zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)
    )
    assert len(places) == len(set(places)) == len(published)
    assert set(places) == published.keys()
    assert "rejected=0" in rooms.log("consumer")


def check_lists(rooms: Rooms) -> None:
    """Each user has a list of items that the user has not touched, the group's own ones first."""
    edges = EdgeStore(rooms.settings.edge_store, rooms.settings.kafka_topic)
    rows = stored(edges)
    own: dict[str, set[str]] = {}
    for user, item in zip(rows["user_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True):
        own.setdefault(user, set()).add(item)
    wait_for("a list of each user", lambda: all(list_of(rooms, user) for user in own))
    for user, items in own.items():
        found = list_of(rooms, user)
        assert found
        assert found.scores == sorted(found.scores, reverse=True), user
        assert not items & set(found.items), user
        assert len(found.items) == len(set(found.items)), user
        if user.startswith("u"):
            group = int(user[1:]) % GROUPS * OF_GROUP
            left = {f"i{group + n}" for n in range(OF_GROUP)} - items
            assert set(found.items[: len(left)]) == left, user


def check_memory(most: dict[tuple[str, bool], int]) -> None:
    """No process has much more memory in the second half than in the first."""
    for room in ROOMS:
        before, after = most.get((room, False)), most.get((room, True))
        assert before, f"{room} was never seen in the first half"
        assert after, f"{room} was never seen in the second half"
        assert after <= GROWTH * before + SLACK, f"{room}: {before} bytes, then {after}"


def check_fresh(delays: list[float]) -> None:
    """Newcomers for whom nothing was killed had their lists within a second.

    That is half of them; and 99 of 100 where there are enough of them to tell.
    """
    assert delays, "there was no time in which nothing was killed"
    assert np.median(delays) <= FRESH, sorted(delays)
    if len(delays) >= ENOUGH:
        assert np.percentile(delays, 99) <= FRESH, sorted(delays)[-10:]


def check_files(rooms: Rooms) -> None:
    """An hour and more later, the trainer and the consumer clear away all that kills have left."""
    folder, topic = rooms.folder, rooms.settings.kafka_topic
    before = time.time() - LATER
    for path in folder.rglob("*"):
        os.utime(path, (before, before))
    assert {path.name for path in folder.iterdir() if path.suffix != ".log"} == {"edges", "models"}

    prune(Snapshots(rooms.settings.model_store))
    names = [path.name for path in (folder / "models").iterdir()]
    versions = [name for name in names if VERSION.fullmatch(name)]
    assert len(versions) <= NEWEST + WERE_LIVE, names
    assert set(names) - set(versions) == {LIVE}, names

    EdgeStore(rooms.settings.edge_store, topic).tidy()
    table = DeltaTable(rooms.settings.edge_store)
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)  # what readers may still hold
    rows = {Path(str(uri)).name for uri in table.file_uris()}
    found = [path.relative_to(folder / "edges") for path in (folder / "edges").rglob("*")]
    left = {str(path) for path in found if not OF_A_LOG.fullmatch(str(path))}
    assert left == rows, left ^ rows
