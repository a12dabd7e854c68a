"""The whole path with the models in an object store, which goes away and comes back."""

import time
from pathlib import Path

import pytest

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from tests.graphs import blocks, pairs
from tests.object_store import gate
from tests.rooms import Rooms, started
from tests.s3 import S3
from tests.services import PATIENCE, wait_for
from trainer.lifecycle.snapshots import Snapshots

LINES = {  # one when the store goes and one when it is back
    "trainer": ("cannot be used (", "can be used again"),
    "serving": ("does not say which model is live", "says which model is live"),
}


def test_a_retrained_model_goes_live_from_an_object_store_that_is_away_for_a_while(
    kafka: str, redis_url: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = [(str(user), str(item)) for user, item, *_ in pairs(blocks())]
    file = tmp_path / "events.csv"
    file.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in edges))
    with gate(s3) as way:
        place = s3.environment | {"AWS_ENDPOINT_URL": way.address}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{s3.bucket()}/models"
        rooms = Rooms(
            tmp_path, kafka, redis_url, MODEL_STORE=uri, STREAMGCN_MIN_EDGES=str(len(edges)),
            STREAMGCN_EPOCHS="10", STREAMGCN_COMMIT_SECONDS="0.2",
        )  # fmt: skip
        snapshots = Snapshots(uri)
        with started(rooms):
            publisher = Publisher(rooms.settings)

            def live() -> str:
                return rooms.store.model().get("version", "")

            def answered(user: str) -> None:
                """An event of the user is answered with a list."""
                event = Event(user, edges[0][1], 1.0, int(time.time() * 1000), "view")
                publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())
                publisher.flush()
                wait_for(f"the list of {user}", lambda: rooms.items(user))

            assert rooms.run("publish", str(file)).returncode == 0
            # The quick first model, and the one with chosen numbers, which follows at once.
            first, second = wait_for(
                "two models", lambda: v if len(v := snapshots.versions()) == 2 else None
            )
            wait_for("the lists of the second", lambda: live() == second)
            answered("early")

            way.shut()
            for room, (gone, _) in LINES.items():
                wait_for(f"the line of the {room}", lambda r=room, g=gone: g in rooms.log(r))  # type: ignore[misc]
            answered("while it is away")
            assert rooms.run("models", "list").returncode == 1
            way.open()
            for room, (_, back) in LINES.items():
                wait_for(f"the {room}", lambda r=room, b=back: b in rooms.log(r))  # type: ignore[misc]
            for room, lines in LINES.items():
                assert [rooms.log(room).count(line) for line in lines] == [1, 1], room

            shown = rooms.run("models", "rollback")
            assert shown.stdout == f"{first} is live; {second} was live before.\n", shown.stderr
            wait_for("the lists of the first", lambda: live() == first)
            assert "running (process" in " ".join(rooms.run("status").stdout.split())

            rooms.kill("trainer")
            rooms.start("trainer", STREAMGCN_MIN_EDGES="1", STREAMGCN_RETRAIN_EDGES="2")
            for number in range(3):
                answered(f"late {number}")
            third = wait_for(
                "a third model", lambda: v[-1] if len(v := snapshots.versions()) > 2 else None,
                2 * PATIENCE,
            )  # fmt: skip
            proof = rooms.run("forget", "early", "--verify")
            assert proof.returncode == 0, proof.stdout + proof.stderr
            assert not snapshots.holding("early")
            assert [rooms.stop(room) for room in ("consumer", "trainer", "serving")] == [0, 0, 0]
            assert third in snapshots.versions()
            publisher.close()
