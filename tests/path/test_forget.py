"""`streamgcn forget`: a user out of every store, by the rooms as processes."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumer.edge.store import EdgeStore
from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from serving.redis.contract import Recommendations
from serving.settings import ServingSettings
from streamgcn.forget import Finding, Search
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
    taken = [rng.choice(25, 10, replace=False) + 25 * (u % 2) for u in range(200)]  # two tastes
    draws = [(f"u{u}", f"i{i}") for u in range(200) for i in taken[u]]
    file = tmp_path / "events.csv"
    pd.DataFrame(draws, columns=["user_id", "item_id"]).to_csv(file, index=False)
    rooms = Rooms(tmp_path, kafka, redis_url, STREAMGCN_TOP_K="5", **QUICK)
    store = EdgeStore.begin(rooms.settings.edge_store, rooms.settings.kafka_topic)
    snapshots = Snapshots(rooms.settings.model_store)
    with started(rooms):
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
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
        wait_for("the lists again", lambda: rooms.log("serving").count("Wrote all lists") == 2)
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
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
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


def test_forget_says_by_its_exit_code_whether_a_trace_is_left_and_reads_no_id_as_markup(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    user = "[/b]\x1b[31m"
    with Rooms(tmp_path, embedded, redis_url, **QUICK) as rooms:
        rooms.start("consumer")
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        publisher = Publisher(rooms.settings)
        event = Event(user, "i", 1.0, 1_700_000_000_000, "view")
        for value in (encode(event), encode(event._replace(interaction=1e13))):
            publisher.send(rooms.settings.kafka_topic, value, user.encode())
        publisher.flush()
        publisher.close()
        wait_for("the rows", lambda: "rejected=1 rows=1" in rooms.log("consumer"))
        proof = rooms.run("forget", user, "--verify")
        assert proof.returncode == 0, proof.stdout + proof.stderr
        assert "[/b]\\x1b[31m: before" in proof.stdout
        assert "1 messages, which are not put back" in " ".join(proof.stdout.split())

        value = msgspec.json.encode(Recommendations(["i"], [1.0], [], "", "model", 0, 0))
        rooms.store.put_users([user], [value])
        left = rooms.run("forget", user, "--verify", "--seconds", "1")
        assert left.returncode == 1, left.stdout
        rooms.store.delete_users([user])
        rooms.kill("consumer")
        unread = rooms.run("forget", user, "--verify", "--seconds", "1")
        assert unread.returncode == 3, unread.stdout
        rooms.env["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
        rooms.env["KAFKA_SECURITY_PROTOCOL"] = "nonsense"
        assert rooms.run("forget", user, "--verify").returncode == 2


def test_looking_for_a_user_reads_no_tensor_and_each_file_of_ids_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(str(tmp_path))
    for version, part in (("20260101T000000.0Z", ""), ("20260102T000000.0Z", "-00000-of-00001")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "manifest.json").write_text("{}")
        (tmp_path / version / f"tables{part}.safetensors").write_bytes(b"no tensors")
        table = pa.table({"user_id": ["u1", "u2"]})
        pq.write_table(table, tmp_path / version / f"users{part}.parquet")
    looked: list[str] = []
    holding = Snapshots.holding

    def counted(self: Snapshots, user: str) -> list[str]:
        looked.append(user)
        return holding(self, user)

    monkeypatch.setattr(Snapshots, "holding", counted)
    settings = ServingSettings(model_store=str(tmp_path), edge_store=str(tmp_path / "edges"))
    search = Search(settings, "u1", {0: 1})
    assert search.models().trace == ", ".join(snapshots.versions())
    assert search.models().trace == ", ".join(snapshots.versions())
    assert looked == ["u1"]
    pq.write_table(
        pa.table({"user_id": ["", "u2"]}), tmp_path / snapshots.versions()[0] / "users.parquet"
    )
    assert search.models().trace == snapshots.versions()[1]


def test_the_files_of_the_edge_store_are_not_searched_before_the_erasure_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    stored = iter(["not yet", "not yet", "not yet", ""])

    def look(name: str) -> Callable[[Search], Finding]:
        def found(_: Search) -> Finding:
            looked.append(name)
            return Finding("", unknown=next(stored) if name == "_behind" else "")

        return found

    for name in ("_behind", "_rows", "_files", "models", "_list", "_letters"):
        monkeypatch.setattr(Search, name, look(name))
    monkeypatch.setattr("streamgcn.forget.LOOK_EVERY", 0.0)
    settings = ServingSettings(model_store=str(tmp_path), edge_store=str(tmp_path / "edges"))
    assert len(Search(settings, "u1", {0: 1}).verify(60.0)) == 6
    assert looked == ["_behind"] * 4 + ["_rows", "_files", "models", "_list", "_letters"]
