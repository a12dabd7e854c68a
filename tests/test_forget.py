"""`streamgcn forget`: a user out of every store, by the rooms as processes."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from consumer.edge.store import EdgeStore
from serving.redis.contract import Recommendations
from tests.rooms import Rooms, started
from tests.services import wait_for
from trainer.lifecycle.snapshots import Snapshots

QUICK = {
    "STREAMGCN_EPOCHS": "5",
    "STREAMGCN_COMMIT_SECONDS": "0.2",
    "STREAMGCN_MIN_EDGES": "2000",
    "STREAMGCN_RETRAIN_SECONDS": "100000",
}


def test_a_forgotten_user_leaves_every_store_and_only_then_is_it_verified(
    kafka: str, redis_url: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    draws = [(f"u{u}", f"i{i}") for u in range(200) for i in rng.choice(50, 10, replace=False)]
    file = tmp_path / "events.csv"
    pd.DataFrame(draws, columns=["user_id", "item_id"]).to_csv(file, index=False)
    rooms = Rooms(tmp_path, kafka, redis_url, STREAMGCN_TOP_K="5", **QUICK)
    store = EdgeStore.begin(rooms.settings.edge_store, rooms.settings.kafka_topic)
    snapshots = Snapshots(rooms.settings.model_store)
    with started(rooms):
        wait_for("the topic", lambda: "Assigned" in rooms.log("consumer"))
        assert rooms.run("publish", str(file)).returncode == 0
        wait_for("the lists", lambda: rooms.store.model() and rooms.store.user("u7"))
        every = dict.fromkeys(range(4), 10**9)
        assert store.of_user("u7", every) == 10
        assert store.files_with("u7", every)
        assert snapshots.holding("u7") == snapshots.versions()

        rooms.kill("trainer")
        early = rooms.run("forget", "u7", "--verify", "--seconds", "8")
        assert early.returncode == 1, early.stdout
        assert snapshots.versions()[0] in early.stdout

        rooms.start("trainer")
        proof = rooms.run("forget", "u7", "--verify")
        assert proof.returncode == 0, proof.stdout
        assert store.of_user("u7", every) == 0
        assert store.files_with("u7", every) == []
        assert snapshots.holding("u7") == []
        assert rooms.store.user("u7") is None
        assert rooms.store.user("u8") is not None

        rooms.kill("serving")
        assert rooms.run("forget", "u9").returncode == 0  # serving will read of it, with no edges
        wait_for("the erasure", lambda: not store.of_user("u9", every))
        rooms.store.put_published(range(4), "something else")
        rooms.start("serving")
        wait_for("the lists again", lambda: rooms.log("serving").count("Published all lists") == 2)
        assert rooms.store.user("u7") is None
        assert rooms.store.user("u9") is None


def test_a_list_that_serving_was_not_there_to_delete_goes_when_it_starts(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    rooms = Rooms(tmp_path, embedded, redis_url, STREAMGCN_TOP_K="5", **QUICK)
    value = msgspec.json.encode(Recommendations(["i"], [1.0], [], "", "model", 0, 0))
    rooms.store.put_users(["u[1]", "u2"], [value, value])
    with rooms:
        rooms.start("consumer")
        wait_for("the topic", lambda: "Assigned" in rooms.log("consumer"))
        file = tmp_path / "events.csv"
        file.write_text("user_id,item_id\nu[1],i\nu2,i\n")
        assert rooms.run("publish", str(file)).returncode == 0
        wait_for("the rows", lambda: rooms.rows() == 2)
        assert rooms.run("forget", "u[1]").returncode == 0
        wait_for(
            "the erasure",
            lambda: (
                not EdgeStore(rooms.settings.edge_store, rooms.settings.kafka_topic).of_user(
                    "u[1]", dict.fromkeys(range(4), 10**9)
                )
            ),
        )
        assert rooms.store.user("u[1]")
        rooms.start("serving")
        wait_for("the list to go", lambda: rooms.store.user("u[1]") is None)
        assert rooms.store.user("u2")
