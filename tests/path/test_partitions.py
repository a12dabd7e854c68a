"""Partitions that are added to a topic while all runs: users move with their keys."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore
from serving.redis.store import Store
from tests.graphs import stored
from tests.rooms import Rooms
from tests.services import wait_for
from tests.travellers import GRAPH, LATE, USERS, Readers, Travellers, add_partitions, create_topic
from trainer.fit.fit import fit
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.hyperparameters import Hyperparameters

FIRST, SECOND = "20260101T000000.0Z", "20260102T000000.0Z"
FRESH = 15.0  # seconds within which a list has what is in the topic
QUICK = {"STREAMGCN_COMMIT_SECONDS": "0.5", "STREAMGCN_TOP_K": "40"}


def promote(rooms: Rooms, version: str, order: float = 0.0) -> None:
    """A model of the blocks goes live; without `order` it has a row for each user."""
    fitted = fit(GRAPH, Hyperparameters(dim=8, epochs=5, vectors=4, learned_order=order).usual())
    made = fitted.embeddings
    manifest = Manifest(
        version, made.model, made.layers, made.cosine, 7, GRAPH.n_users, GRAPH.n_items, len(GRAPH),
        1, {}, asdict(fitted.settings), {}, {},
    )  # fmt: skip
    snapshots = Snapshots(rooms.settings.model_store)
    snapshots.write(Snapshot(manifest, made, GRAPH.user_ids.values, GRAPH.item_ids.values))
    snapshots.promote(version)


def are_read(rooms: Rooms, names: Sequence[str], partitions: int) -> bool:
    """Whether so many of the processes read partitions."""
    return sum("Reading partitions" in rooms.log(name) for name in names) >= partitions


@pytest.mark.parametrize(
    ("before", "after", "kill"),
    [(2, 5, ""), pytest.param(1, 3, "consumer", marks=pytest.mark.long)],
)
def test_users_move_with_their_keys_when_partitions_are_added_and_no_list_stays_behind(
    apache: str, redis_url: str, tmp_path: Path, before: int, after: int, kill: str
) -> None:
    with ExitStack() as stack:
        rooms = stack.enter_context(Rooms(tmp_path, apache, redis_url, **QUICK))
        topic = rooms.settings.kafka_topic
        create_topic(apache, topic, before)
        promote(rooms, FIRST)
        rooms.start("consumer", "serving")
        for room in ("consumer", "serving"):
            two = room, rooms.start_another(room)
            wait_for("all partitions to be read", partial(are_read, rooms, two, before))
        travellers = stack.enter_context(Travellers(apache, topic, seed=before))
        wait_for("lists of all users", lambda: all(rooms.items(user) for user in USERS))
        readers = stack.enter_context(Readers(travellers, rooms.store))

        add_partitions(apache, topic, after)
        travellers.add(LATE)
        if kill:
            rooms.kill(kill)
            rooms.start(kill)
        store = EdgeStore(rooms.settings.edge_store, topic)
        wait_for("rows of all partitions", lambda: len(store.offsets([*range(after)])) == after)
        promote(rooms, SECOND)  # all lists are written while users move
        every = set(range(after))

        def are_published(of: Store) -> bool:
            editions = of.published(every).values()
            return len(editions) == after and all(each.startswith(SECOND) for each in editions)

        wait_for("lists for all partitions", lambda: are_published(rooms.store))
        wait_for("most users to move", lambda: len(travellers.moved()) > len(USERS) // 2)
        wait_for("lists of who came late", lambda: all(rooms.items(user) for user in LATE))
        travellers.end()

        wait_for("all rows", lambda: store.count() >= len(travellers.places))
        other = {"REDIS_PREFIX": f"{topic}-fresh", "KAFKA_GROUP": f"{topic}-fresh"}
        fresh = stack.enter_context(closing(Store(redis_url, other["REDIS_PREFIX"])))
        rooms.start_another("serving", **other)
        wait_for("a fresh process's lists", lambda: are_published(fresh))

        def others() -> list[str]:
            """Users whose lists are not what the fresh process makes of the same edges; popular
            lists depend on the moment.
            """
            of = {user: found for user in travellers.users if (found := fresh.user(user))}
            made = {user: found.items for user, found in of.items() if found.source != "popular"}
            assert len(made) > len(USERS)
            return [user for user, items in made.items() if rooms.items(user) != items]

        wait_for("every list to be what a fresh process makes of it", lambda: not others())
        readers.end()
        assert readers.stalest < FRESH, readers.of
        rows = stored(store)
        places = list(
            zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)
        )
        assert sorted(places) == sorted(travellers.places)
