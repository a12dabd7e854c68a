"""The whole path with the edge store in a bucket: rooms as processes, a real broker and Redis."""

from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pytest

from consumer.edge.store import EdgeStore
from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from tests.graphs import blocks, pairs, stored
from tests.object_store import edges_in_a_bucket, objects
from tests.rooms import Rooms, started
from tests.s3 import S3
from tests.services import wait_for

QUICK = {
    "STREAMGCN_EPOCHS": "5",
    "STREAMGCN_COMMIT_SECONDS": "0.2",
    "STREAMGCN_MIN_EDGES": "500",
    "STREAMGCN_TOP_K": "5",
}
GONE = "user-0-7"


def test_events_reach_lists_by_an_edge_store_in_a_bucket_and_a_forgotten_user_leaves_it(
    kafka: str, redis_url: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = edges_in_a_bucket(s3, monkeypatch)
    taken = [(f"user-{user}", str(item)) for user, item, *_ in pairs(blocks())]
    rooms = Rooms(tmp_path, kafka, redis_url, EDGE_STORE=uri, **s3.environment, **QUICK)
    publisher = Publisher(rooms.settings)

    def touch(*edges: tuple[str, str]) -> None:
        for user, item in edges:
            event = Event(user, item, 1.0, 1_790_000_000_000, "view")
            publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())
        publisher.flush()

    with started(rooms):
        another = rooms.start_another("consumer")
        for room in ("consumer", another):
            wait_for("the topic", partial(lambda r: "Reading part" in rooms.log(r), room))
        touch(*taken)
        wait_for("a model", rooms.store.model)
        store = EdgeStore(uri, rooms.settings.kafka_topic)
        wait_for("all rows", lambda: store.count() == len(taken))
        rooms.kill(another)
        touch(("newcomer", "2-3"), ("newcomer", "2-4"))
        found = wait_for("the newcomer's list", lambda: rooms.store.user("newcomer"))
        assert found.source == "live"
        wait_for("its rows", lambda: store.count() == len(taken) + 2)
        assert "edge store" in rooms.run("status").stdout

        proof = rooms.run("forget", GONE, "--verify")
        assert proof.returncode == 0, proof.stdout + proof.stderr
        assert [key for key, held in objects(uri).items() if GONE.encode() in held] == []
        assert [rooms.stop(room) for room in ("consumer", "trainer", "serving")] == [0, 0, 0]
    publisher.close()
    rows = stored(store)
    rows = rows.filter(pc.equal(rows["type"], "view"))  # without the notice of the erasure
    kept = [edge for edge in [*taken, ("newcomer", "2-3"), ("newcomer", "2-4")] if edge[0] != GONE]
    users, items = (rows[name].to_pylist() for name in ("user_id", "item_id"))
    assert sorted(zip(users, items, strict=True)) == sorted(kept)
    logs = "".join(rooms.log(room) for room in ("consumer", another, "trainer", "serving"))
    assert "Traceback" not in logs
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in logs
