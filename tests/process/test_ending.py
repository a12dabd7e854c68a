"""Every process ends soon after SIGTERM or SIGHUP, with code 0, whatever it is doing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from consumer.edge.store import EdgeStore
from consumer.ingest.loop import Ingest
from consumer.kafka.client import StreamError
from consumer.kafka.publisher import Publisher
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_command
from tests.commands import STREAMGCN, Command, without_settings
from tests.graphs import append, graph, pairs
from tests.ingesting import Topic, likes
from tests.rooms import Rooms
from tests.services import PATIENCE, ROOT, embedded_kafka, log, process, wait_for
from tests.serving.test_serving import snapshot_of
from tests.threads import begun, threads
from tests.trainer.test_snapshots import NAMES
from tests.watching import get
from trainer.embedding.blend import BlendEmbeddings
from trainer.lifecycle.snapshots import Snapshots

NOWHERE = "127.0.0.1:1"


class Watched:
    """A room with an endpoint."""

    def __init__(self, rooms: Rooms, room: str, **settings: str) -> None:
        self.rooms, self.room, self.port = rooms, room, free_port()
        rooms.start(room, STREAMGCN_METRICS_PORT=str(self.port), **settings)

    def wait(self, reason: str) -> None:
        """Until it says at /readyz that it lacks this; it must be healthy then."""

        def says() -> bool:
            code, text = get(self.port, "/readyz")
            return code == 503 and reason in text

        wait_for(f"{self.room}: {reason}", says)
        assert get(self.port, "/healthz")[0] == 200

    def wait_ready(self) -> None:
        wait_for(f"{self.room}: ready", lambda: get(self.port, "/readyz") == (200, "ready\n"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        told = time.monotonic()
        assert self.rooms.stop(self.room, number) == 0, self.rooms.log(self.room)
        assert time.monotonic() - told < 10
        assert "Traceback" not in self.rooms.log(self.room)
        assert "did not stop within" not in self.rooms.log(self.room)


def own(folder: Path, name: str, kafka: str, redis_url: str, **settings: str) -> Rooms:
    (folder / name).mkdir()
    return Rooms(folder / name, kafka, redis_url, **settings)


def test_what_waits_for_kafka_or_the_store_at_its_start_is_healthy_and_ends_when_told(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    away = {"EDGE_STORE": str(tmp_path / "file" / "edges")}
    waiting = [
        ("consumer", "waiting for Kafka", NOWHERE, {}, signal.SIGTERM),
        ("consumer", "waiting for the edge store", embedded, away, signal.SIGHUP),
        ("trainer", "edge store", NOWHERE, away, signal.SIGTERM),
        ("serving", "waiting for Kafka", NOWHERE, {}, signal.SIGHUP),
        ("serving", "waiting for the edge store", embedded, away, signal.SIGINT),
    ]
    with ExitStack() as stack:
        started = []
        for number, (room, reason, kafka, settings, sent) in enumerate(waiting):
            rooms = own(tmp_path, str(number), kafka, redis_url, **settings)
            stack.enter_context(rooms)
            started.append((Watched(rooms, room), reason, sent))
        for watched, reason, _ in started:
            watched.wait(reason)
        for watched, _, sent in started:
            watched.end(sent)


def take_away(store: str) -> None:
    """Put a file where the edge store was."""
    Path(store).rename(f"{store} elsewhere")
    Path(store).write_text("in the way")


def publish(rooms: Rooms, *users: str) -> None:
    file = rooms.folder / "events.csv"
    file.write_text("user_id,item_id\n" + "".join(f"{user},i\n" for user in users))
    assert rooms.run("publish", str(file)).returncode == 0


def test_a_consumer_ends_when_told_while_its_store_and_its_broker_are_away(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        embedded_kafka(tmp_path) as broker,
        own(tmp_path, "a", broker.address, redis_url) as rooms,
    ):
        consumer = Watched(rooms, "consumer")
        consumer.wait_ready()
        publish(rooms, "u1")
        wait_for("the first event", lambda: rooms.rows() == 1)
        take_away(rooms.env["EDGE_STORE"])
        publish(rooms, "u2")
        consumer.wait("edge store")
        broker.kill()
        consumer.wait("Kafka at")
        consumer.wait("edge store")
        consumer.end()


def test_a_running_trainer_ends_when_told_while_its_store_is_away(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    with own(tmp_path, "a", embedded, redis_url) as rooms:
        EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
        trainer = Watched(rooms, "trainer")
        trainer.wait_ready()
        take_away(rooms.env["EDGE_STORE"])
        trainer.wait("edge store")
        trainer.end()


def test_serving_ends_when_told_while_its_broker_is_away(redis_url: str, tmp_path: Path) -> None:
    with (
        embedded_kafka(tmp_path) as broker,
        own(tmp_path, "a", broker.address, redis_url) as rooms,
    ):
        EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
        serving = Watched(rooms, "serving")
        serving.wait("no model is live yet")
        broker.kill()
        serving.wait("Kafka at")
        serving.end()


def test_serving_ends_when_told_in_the_middle_of_writing_all_lists(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    users, items = 20_000, 200
    known = graph([(f"u{number}", f"i{number % items}") for number in range(users)])
    tensors = {
        "base": torch.rand(users, 64), "incoming": torch.rand(items, 64),
        "outgoing": torch.rand(items, 64), "strengths": torch.ones(items), "scales": torch.ones(3),
    }  # fmt: skip
    with own(tmp_path, "a", embedded, redis_url) as rooms:
        edges = EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
        append(edges, pairs(known), 0)
        wait_for_topics(rooms.settings, threading.Event(), log)
        publisher = Publisher(rooms.settings)
        for _ in range(users):  # what the edge store holds already, which nobody reads
            publisher.send(rooms.settings.kafka_topic, b"-", b"k", (), 0)
        publisher.flush()
        publisher.close()
        snapshots = Snapshots(rooms.env["MODEL_STORE"])
        made = snapshot_of(known, BlendEmbeddings("lightgcn", 3, True, tensors))
        made.manifest.version = NAMES[0]
        made.manifest.settings = {"dim": 64, "learned_power": 0.5}
        snapshots.write(made)
        snapshots.promote(NAMES[0])
        serving = Watched(rooms, "serving")
        wait_for("the publication", lambda: "Writing all lists" in rooms.log("serving"))
        serving.end()
        assert "Wrote all lists" not in rooms.log("serving")


def test_the_page_ends_when_told(tmp_path: Path) -> None:
    with own(tmp_path, "a", NOWHERE, f"redis://{NOWHERE}") as rooms:
        port = free_port()
        with (rooms.folder / "page.log").open("wb") as lines:
            page = Command(["page", "--port", str(port)], rooms.env, stderr=lines)
        try:
            wait_for("the page", lambda: get(port, "/")[0] == 200)
            told = time.monotonic()
            page.terminate()
            assert page.wait(PATIENCE) == 0
            assert time.monotonic() - told < 10
        finally:
            page.kill()
        assert "Traceback" not in rooms.log("page")


def test_serving_ends_when_told_while_redis_takes_connections_and_answers_none(
    embedded: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with own(tmp_path, "a", embedded, url) as rooms:
            EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
            serving = Watched(rooms, "serving")
            serving.wait("Redis")
            serving.end()


def test_serving_ends_when_told_while_a_redis_that_it_has_reached_stops_to_answer(
    embedded: str, tmp_path: Path
) -> None:
    port = free_port()
    with (
        process(redis_command(port), port, tmp_path / "redis.log") as server,
        own(tmp_path, "a", embedded, f"redis://127.0.0.1:{port}/0") as rooms,
    ):
        EdgeStore.begin(rooms.env["EDGE_STORE"], rooms.settings.kafka_topic)
        serving = Watched(rooms, "serving")
        serving.wait("no model is live yet")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            serving.wait("Redis does not answer")
            serving.end()
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_serving_without_redis_or_a_model_is_healthy_not_ready_and_says_what_is_missing(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    gone = f"redis://127.0.0.1:{free_port()}/0"
    with (
        own(tmp_path, "a", embedded, gone) as without,
        own(tmp_path, "b", embedded, redis_url) as rooms,
    ):
        for each in (without, rooms):
            EdgeStore.begin(each.env["EDGE_STORE"], each.settings.kafka_topic)
        redisless, serving = Watched(without, "serving"), Watched(rooms, "serving")
        redisless.wait("Redis does not answer")
        serving.wait("no model is live yet")
        redisless.end()
        serving.end()


def test_a_trainer_ends_when_told_in_the_middle_of_a_training_and_was_healthy_in_it(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    with own(tmp_path, "a", embedded, redis_url, STREAMGCN_EPOCHS="100000") as rooms:
        rooms.start("consumer")
        events = tmp_path / "events.csv"
        lines = [f"u{u},i{(u * 7 + i) % 60}" for u in range(60) for i in range(30)]
        events.write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        assert rooms.run("publish", str(events)).returncode == 0
        trainer = Watched(rooms, "trainer")
        wait_for("the training", lambda: "training for" in get(trainer.port, "/healthz")[1])
        assert get(trainer.port, "/healthz")[0] == 200
        trainer.end()


@pytest.mark.parametrize(
    ("command", "sent", "code"),
    [
        ("consumer", signal.SIGINT, 0),
        ("serving", signal.SIGTERM, 0),
        ("up", signal.SIGHUP, 0),
        ("status", signal.SIGINT, -signal.SIGINT),
    ],
)
def test_a_signal_while_the_command_is_starting_ends_it_without_a_traceback(
    command: str, sent: signal.Signals, code: int
) -> None:
    python, *streamgcn = STREAMGCN
    starting = subprocess.Popen(
        [python, "-X", "importtime", *streamgcn, command],
        env=without_settings() | {"KAFKA_BOOTSTRAP_SERVERS": NOWHERE},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starting.stderr
    for line in starting.stderr:
        if line.endswith("typer.main\n"):
            break
    starting.send_signal(sent)
    _, said = starting.communicate(timeout=PATIENCE)
    assert starting.returncode == code
    assert "Traceback" not in said


def test_a_process_whose_loop_hangs_in_a_library_ends_all_the_same() -> None:
    code = """
import time
from process import shutdown
from process.running import running
shutdown.GRACE_SECONDS = 0.5
with running("consumer", (), "text", "127.0.0.1", 0) as process:
    with process.health.busy("a long sleep"):
        print("there", flush=True)
        time.sleep(600)
"""
    hanging = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert hanging.stdout
    assert hanging.stdout.readline() == "there\n"
    hanging.terminate()
    _, said = hanging.communicate(timeout=PATIENCE)
    assert hanging.returncode == 0
    assert "did not stop within" in said
    assert "busy with a long sleep" in said


def test_a_fatal_error_of_kafka_while_the_store_is_away_ends_every_thread_of_the_consumer(
    embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(embedded, tmp_path)
    before = threads()
    ingest = Ingest.join(topic.settings, threading.Event())
    ended = begun(ingest.run)
    topic.publish(*likes("u", ["i"]))
    topic.wait_stored()
    edges = tmp_path / "edges"
    edges.rename(tmp_path / "elsewhere")
    edges.write_text("in the way")
    topic.publish(*likes("u", ["i2"]))
    wait_for("that the store is missed", lambda: ingest._writer.trouble)

    def refused(*_: object) -> object:
        raise StreamError("Kafka refuses")

    monkeypatch.setattr(Subscription, "poll", refused)
    with pytest.raises(StreamError, match="Kafka refuses"):
        ended.result(PATIENCE)
    topic.publisher.close()

    def left() -> list[threading.Thread]:
        return [each for each in threads() - before if not each.daemon]

    wait_for("the end of all threads", lambda: not left())
