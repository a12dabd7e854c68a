"""The commands that show and choose the live model."""

import json
import time
from pathlib import Path

from redis import Redis

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from tests.graphs import blocks, pairs
from tests.rooms import Rooms, started
from tests.services import wait_for
from tests.trainer.test_snapshots import NAMES, filled, snapshot


def read(rooms: Rooms, user: str) -> tuple[str, str, list[str]]:
    """Model and source of a user's list, and the items in it, as any Redis client reads them."""
    with Redis.from_url(rooms.settings.redis_url) as client:
        value = client.get(f"{rooms.settings.redis_prefix}:rec:{user}")
    found = (
        json.loads(value) if isinstance(value, bytes) else {"model": "", "source": "", "items": []}
    )
    return str(found["model"]), str(found["source"]), list(found["items"])


def of_list(rooms: Rooms, user: str) -> tuple[str, list[str]]:
    """The model of a user's list and the items in it."""
    model, _, items = read(rooms, user)
    return model, items


def wait_refreshed(rooms: Rooms, model: str, user: str, item: str) -> None:
    """Events of a user get a list of the model within ten seconds."""
    publisher = Publisher(rooms.settings)

    def answered() -> bool:
        event = Event(user, item, 1.0, int(time.time() * 1000), "view")
        publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())
        publisher.flush()
        return read(rooms, user)[:2] == (model, "live")

    wait_for(f"a new list of {model}", answered, seconds=10)
    publisher.close()


def test_promote_and_rollback_beside_a_running_trainer_change_what_a_client_reads(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    edges = [(str(user), str(item)) for user, item, *_ in pairs(blocks())]
    file = tmp_path / "events.csv"
    file.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in edges))
    rooms = Rooms(
        tmp_path, embedded, redis_url, STREAMGCN_MIN_EDGES=str(len(edges)),
        STREAMGCN_EPOCHS="10", STREAMGCN_COMMIT_SECONDS="0.2",
    )  # fmt: skip
    with started(rooms):
        assert rooms.run("publish", str(file)).returncode == 0
        models = tmp_path / "models"

        def both() -> list[str]:
            """The quick first model and the one with chosen numbers, which follows at once."""
            made = sorted(path.name for path in models.glob("*Z"))
            return made if len(made) == 2 else []

        first, second = wait_for("two models", both)
        wait_for("the lists of the second", lambda: of_list(rooms, "0-0")[0] == second)
        newer = of_list(rooms, "0-0")[1]
        assert rooms.run("models", "promote", first).returncode == 0
        wait_refreshed(rooms, first, *edges[-1])
        wait_for("the lists of the first", lambda: of_list(rooms, "0-0")[0] == first)
        shown = rooms.run("models", "list").stdout
        assert f"* {first}" in shown
        assert f"  {second}" in shown
        back = rooms.run("models", "rollback")
        assert back.stdout == f"{second} is live; {first} was live before.\n"
        wait_refreshed(rooms, second, *edges[-1])
        wait_for("the lists of the second", lambda: of_list(rooms, "0-0")[0] == second)
        assert of_list(rooms, "0-0")[1] == newer


def test_list_and_show_say_what_each_model_is_worth_and_why_one_was_rejected(
    tmp_path: Path,
) -> None:
    snapshots = filled(tmp_path / "models", *NAMES[:2])
    snapshots.write(snapshot(NAMES[2], rejected="it is worse"))
    (tmp_path / "models" / NAMES[0] / "manifest.json").write_text("{")
    rooms = Rooms(tmp_path, "localhost:1", "redis://localhost:1", COLUMNS="200")
    shown = rooms.run("models", "list")
    assert shown.returncode == 0
    assert rooms.run("models").stdout == shown.stdout
    lines = shown.stdout.splitlines()
    assert any(NAMES[0] in line and "damaged" in line for line in lines)
    assert any(f"* {NAMES[1]}" in line and "0.5000" in line and "passed" in line for line in lines)
    assert any(NAMES[2] in line and "rejected: it is worse" in line for line in lines)
    facts = rooms.run("models", "show", NAMES[2]).stdout
    assert "rejected: it is worse" in facts
    assert "learned_power" in facts
    promoted = rooms.run("models", "promote", NAMES[2])
    assert promoted.stdout == f"{NAMES[2]} is live.\n"
    assert "had rejected" in promoted.stderr


def test_a_version_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    filled(tmp_path / "models", NAMES[0])
    rooms = Rooms(tmp_path, "localhost:1", "redis://localhost:1")
    for command in ("show", "promote"):
        ran = rooms.run("models", command, "yesterday")
        assert ran.returncode == 1
        assert ran.stderr.startswith("streamgcn: there is no snapshot yesterday in ")
        assert ran.stderr.count("\n") == 1
