"""Rights and passwords on an Apache Kafka: what each process needs, and what it does without."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from consumer.edge.store import EdgeStore
from consumer.edge.table import StoreMissing
from consumer.event.json import Event, encode
from consumer.ingest.loop import Ingest
from consumer.kafka.client import AccessRefused
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import read_topic, wait_for_topics
from consumer.settings import ConsumerSettings
from serving.redis.errors import READER_RULE
from serving.redis.store import Store
from tests import commands, services
from tests.commands import Command
from tests.ingesting import consuming, likes
from tests.secure import PASSWORD, Rights, SecureKafka
from tests.services import wait_for
from tests.serving.test_redis_rights import as_user


class Place:
    """A topic of the test's own, made by somebody who may do everything."""

    def __init__(self, broker: SecureKafka, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self.all = ConsumerSettings(
            kafka_bootstrap_servers=broker.address["PLAIN"],
            kafka_topic=self.name,
            kafka_group=self.name,
            edge_store=str(folder / "edges"),
            commit_seconds=0.2,
        )
        wait_for_topics(self.all, threading.Event(), services.log)
        self.publisher = Publisher(self.all)

    def environment(self, user: str) -> dict[str, str]:
        return self.broker.right("SASLTLS") | {
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_TOPIC": self.name,
            "KAFKA_GROUP": self.name,
            "EDGE_STORE": str(self.folder / "edges"),
            "MODEL_STORE": str(self.folder / "models"),
            "STREAMGCN_COMMIT_SECONDS": "0.2",
        }

    def settings(self, user: str) -> ConsumerSettings:
        env = self.environment(user)
        values = {name.lower(): value for name, value in env.items() if "STREAMGCN" not in name}
        return ConsumerSettings.model_validate({**values, "commit_seconds": 0.2})

    def consumer(self) -> Rights:
        return {
            ("TOPIC", self.name): "READ",
            ("GROUP", self.name): "READ",
            ("TOPIC", f"{self.name}.dead"): "WRITE",
        }

    def send(self, *values: bytes) -> None:
        for value in values:
            self.publisher.send(self.name, value, b"k")
        self.publisher.flush()

    def stored(self) -> int:
        try:
            return EdgeStore(str(self.folder / "edges"), self.name).count()
        except StoreMissing:
            return 0


@pytest.fixture
def place(secure: SecureKafka, tmp_path: Path) -> Iterator[Place]:
    made = Place(secure, tmp_path)
    yield made
    made.publisher.close()


def run(place: Place, user: str, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return commands.run(command, os.environ | place.environment(user) | more, place.folder)


@contextmanager
def running(place: Place, user: str, room: str, **more: str) -> Iterator[psutil.Process]:
    """A process of its own; what it says is in `<room>.log`."""
    with (place.folder / f"{room}.log").open("wb") as log:
        env = os.environ | place.environment(user) | more
        child = Command([room], env, place.folder, stderr=log)
        try:
            yield psutil.Process(child.pid)
            assert child.poll() is None, (place.folder / f"{room}.log").read_text()
        finally:
            child.terminate()
            child.wait(services.PATIENCE)


def test_with_the_rights_of_the_readme_an_event_reaches_redis_and_every_command_works(
    place: Place, redis_url: str
) -> None:
    topic, dead = place.name, f"{place.name}.dead"
    place.broker.allow(place.consumer(), "consumer")
    serving = {("TOPIC", topic): "READ", ("GROUP", f"{topic}-serving"): "READ"}
    place.broker.allow(serving, "serving")
    place.broker.allow({("TOPIC", topic): "WRITE"}, "publisher")
    operator = {
        ("TOPIC", topic): "READ WRITE",
        ("TOPIC", dead): "READ WRITE",
        ("TRANSACTIONAL_ID", f"{dead}.reinject"): "WRITE",
        ("GROUP", topic): "DESCRIBE",
        ("GROUP", f"{topic}-serving"): "DESCRIBE",
    }
    place.broker.allow(operator, "operator")
    file = place.folder / "events.csv"
    pairs = [(f"u{user}", f"i{(user + step) % 30}") for user in range(60) for step in range(8)]
    file.write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in pairs))
    redis = {"REDIS_URL": redis_url, "REDIS_PREFIX": topic}
    training = {"STREAMGCN_MIN_EDGES": "100", "STREAMGCN_EPOCHS": "5"}
    store = Store(redis_url, topic)
    with (
        running(place, "consumer", "consumer"),
        running(place, "nobody", "trainer", **training),
        running(place, "serving", "serving", **redis),
    ):
        published = run(place, "publisher", "publish", str(file))
        assert published.returncode == 0, published.stderr
        wait_for("a list of a known user", lambda: store.user("u1"))
        place.send(b"no event", *(encode(event) for event in likes("new", ["i1", "i2"])))
        wait_for("the newcomer's list", lambda: store.user("new"))
        rights = {("TOPIC", topic): "WRITE", ("TOPIC", f"{topic}.dead"): "WRITE"}
        rights["TRANSACTIONAL_ID", f"{topic}.dead.reinject"] = "WRITE"
        place.broker.allow(rights, "publisher")
        assert run(place, "publisher", "forget", "u1").returncode == 0
        wait_for("the list to go", lambda: store.user("u1") is None)
        place.broker.allow({("TOPIC", dead): "READ"}, "publisher")
        reader = redis | {"REDIS_URL": as_user(redis_url, "reader", READER_RULE, topic)}
        forgotten = run(place, "publisher", "forget", "u2", "--verify", **reader)
        assert forgotten.returncode == 0, forgotten.stdout + forgotten.stderr
        recommended = run(place, "nobody", "recommend", "u3", **reader)
        assert recommended.returncode == 0, recommended.stderr
        wait_for("the dead letter", lambda: list(read_topic(place.all, dead)))
        listed = run(place, "operator", "dead-letters", "list")
        assert "not JSON" in listed.stdout, listed.stderr
        injected = run(place, "operator", "dead-letters", "re-inject")
        assert injected.returncode == 0, injected.stderr
        rule = "+hmget +info"
        assert f"| `status` | `{rule}` |" in (services.ROOT / "docs" / "security.md").read_text()
        status = redis | {"REDIS_URL": as_user(redis_url, "status", rule, topic)}
        shown = run(place, "operator", "status", **status)
        assert shown.stdout.count("1 running") == 2, shown.stdout + shown.stderr
        assert shown.returncode == 0, shown.stdout
        assert "does not let" not in shown.stdout


@pytest.mark.parametrize(
    ("missing", "right"),
    [
        (("TOPIC", "{}"), "READ topic {}"),
        (("GROUP", "{}"), "READ group {}"),
        (("TOPIC", "{}.dead"), "WRITE topic {}.dead"),
    ],
)
def test_a_right_that_is_missing_at_the_start_is_named(
    place: Place, missing: tuple[str, str], right: str
) -> None:
    rights = dict(place.consumer())
    del rights[missing[0], missing[1].format(place.name)]
    place.broker.allow(rights)
    settings, stop = place.settings("app"), threading.Event()
    with pytest.raises(AccessRefused) as refused:  # noqa: PT012  # either may refuse
        wait_for_topics(settings, stop, services.log)
        Ingest.join(settings, stop).run()
    assert f"does not let the user app {right.format(place.name)}" in str(refused.value)


def test_a_topic_that_is_missing_and_may_not_be_created_is_told(place: Place) -> None:
    name = f"{place.name}x"
    place.broker.allow({("TOPIC", name): "READ", ("TOPIC", f"{name}.dead"): "WRITE"})
    settings = place.settings("app").model_copy(update={"kafka_topic": name})
    with pytest.raises(AccessRefused, match=f"topic {name} is missing .* may not create it"):
        wait_for_topics(settings, threading.Event(), services.log)


@pytest.mark.parametrize(
    ("user_may", "command", "right"),
    [
        ({}, ["publish", "f.csv"], "WRITE topic {}"),
        ({}, ["forget", "u1"], "WRITE topic {}"),
        ({}, ["dead-letters", "list"], "READ topic {}.dead"),
        ({("TOPIC", "{}.dead"): "READ WRITE"}, ["dead-letters", "re-inject"], "transactional id"),
        ({("TOPIC", "{}"): "READ"}, ["status"], "DESCRIBE group {}"),
        (
            {("GROUP", "{}"): "READ", ("TOPIC", "{}.dead"): "WRITE"},
            ["consumer"],
            "READ topic {}",
        ),
        ({("GROUP", "{}-serving"): "READ"}, ["serving"], "READ topic {}"),
        ({("TOPIC", "{}"): "READ"}, ["serving"], "READ group {}-serving"),
    ],
)
def test_a_command_without_its_right_ends_with_code_2_and_the_rights_name(
    place: Place, user_may: Rights, command: list[str], right: str, redis_url: str
) -> None:
    (place.folder / "f.csv").write_text("user_id,item_id\nu1,i1\n")
    place.broker.allow(
        {(kind, name.format(place.name)): given for (kind, name), given in user_may.items()}
    )
    EdgeStore.begin(str(place.folder / "edges"), place.name)  # for which serving waits before
    ended = run(place, "app", *command, REDIS_URL=redis_url, REDIS_PREFIX=place.name)
    assert ended.returncode == 2, ended.stderr
    lines = ended.stderr.splitlines()
    assert [line for line in lines if right.format(place.name) in line] == lines[-1:]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("taken", "right"),
    [
        (("TOPIC", "{}"), "READ topic {}"),
        (("GROUP", "{}"), "READ group {}"),
        (("TOPIC", "{}.dead"), "WRITE topic {}.dead"),
    ],
)
def test_a_right_that_is_taken_away_is_one_line_and_waited_for(
    place: Place, caplog: pytest.LogCaptureFixture, taken: tuple[str, str], right: str
) -> None:
    caplog.set_level("INFO")
    rights = place.consumer()
    resource = (taken[0], taken[1].format(place.name))
    place.broker.allow(rights)

    def lines(part: str) -> int:
        return sum(part in each.getMessage() for each in caplog.records)

    with consuming(place.settings("app")):
        place.send(*(encode(event) for event in likes("u1", ["i1", "i2"])))
        wait_for("the events", lambda: place.stored() == 2)
        place.broker.take({resource: rights[resource]})
        wait_for_refusal = right.format(place.name)
        place.send(b"no event")
        wait_for("the line", lambda: lines(wait_for_refusal))
        place.broker.allow(rights)
        place.send(*(encode(event) for event in likes("u2", ["i1", "i2"])), b"no event")
        wait_for("the other events", lambda: place.stored() == 4)
        wait_for("the line that it is over", lambda: lines("again (away for"))
    assert lines(wait_for_refusal) == 1
    assert lines("again (away for") == 1


def own_threads(child: psutil.Process) -> int:
    """Threads but those of delta-rs, of which there are now more and now fewer."""
    found = 0
    for name in Path(f"/proc/{child.pid}/task").glob("*/comm"):
        with suppress(OSError):  # it has ended since
            found += not name.read_text().startswith("tokio")
    return found


def test_a_password_that_is_changed_is_told_in_one_line_and_waited_for(place: Place) -> None:
    change_the_password(place, lambda _: None)


@pytest.mark.long
def test_while_a_password_is_wrong_neither_threads_nor_descriptors_leak(place: Place) -> None:
    seen: list[tuple[int, int]] = []

    def failed_tries(child: psutil.Process) -> None:
        """Threads and descriptors, looked at every two seconds."""
        for _ in range(15):
            time.sleep(2)
            seen.append((own_threads(child), child.num_fds()))

    change_the_password(place, failed_tries)
    for counts in zip(*seen, strict=True):
        assert max(counts[-5:]) <= max(counts[:5]) + 2, seen


def change_the_password(place: Place, meanwhile: Callable[[psutil.Process], None]) -> None:
    """The consumer's own, and back; `meanwhile` is called while the consumer has the wrong one."""
    log = place.folder / "consumer.log"
    place.broker.allow(place.consumer())

    def told(part: str) -> int:
        return log.read_text().count(part)

    with running(place, "app", "consumer") as child:
        place.send(encode(Event("u1", "i1", 1.0, 1_700_000_000_000, "view")))
        wait_for("the event", lambda: place.stored() == 1)
        try:
            place.broker.password("another")
            wait_for("the line", lambda: told("refuses KAFKA_SASL_USERNAME=app"))
            meanwhile(child)
        finally:
            place.broker.password(PASSWORD)
        place.send(encode(Event("u2", "i1", 1.0, 1_700_000_000_000, "view")))
        wait_for("the other event", lambda: place.stored() == 2)
    assert told("refuses KAFKA_SASL_USERNAME=app") == 1
    assert told("can be used again") == 1
    assert PASSWORD not in log.read_text()
