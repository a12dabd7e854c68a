"""Serving while its Redis is down, full, read-only, locked or emptied: nothing is lost, and the
log says each thing once. On a real broker and Redis; the loop runs on a thread of the test.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from redis import Redis

from consumer.edge.store import EdgeStore
from consumer.event.json import Event, encode
from consumer.kafka.identity import topic_id
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import wait_for_topics
from process.health import Health
from process.log import Figures
from process.running import Running
from serving import serve
from serving.lists.recommender import Recommender
from serving.loop.all_lists import AllLists
from serving.redis import redis_outage
from serving.redis.errors import RedisDown, RedisRefuses
from serving.redis.redis_outage import RedisOutage
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn import forget
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_command
from tests.graphs import blocks, pairs
from tests.services import Broker, patient, redis_cluster, wait_for
from tests.threads import running
from trainer.fit.fit import fit
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.hyperparameters import Hyperparameters

T = TypeVar("T")
FIRST, SECOND = "20260101T000000.0Z", "20260102T000000.0Z"
GRAPH = blocks(users=20)
PAIRS = [(user, item) for user, item, *_ in pairs(GRAPH)]
log = logging.getLogger("serving")


class Serving:
    """What the loop works on, and a look at its lists."""

    def __init__(self, folder: Path, kafka: str, redis_url: str) -> None:
        redis_url = patient(redis_url)  # else a slow answer is an outage, which is counted here
        self.settings = ServingSettings(
            kafka_bootstrap_servers=kafka, kafka_topic=folder.name, kafka_group=folder.name,
            edge_store=str(folder / "edges"), model_store=str(folder / "models"),
            redis_url=redis_url, top_k=3, device="cpu",
        )  # fmt: skip
        self.store = Store(redis_url, "streamgcn")
        snapshots = Snapshots(self.settings.model_store)
        embeddings = fit(
            GRAPH, Hyperparameters(dim=8, epochs=10, vectors=4, learned_order=0.0).usual()
        )
        for version in (FIRST, SECOND):
            manifest = Manifest(
                version, embeddings.embeddings.model, embeddings.embeddings.layers,
                embeddings.embeddings.cosine, 7, GRAPH.n_users, GRAPH.n_items, len(GRAPH), 1,
                {}, asdict(embeddings.settings), {}, {},
            )  # fmt: skip
            ids = GRAPH.user_ids.values, GRAPH.item_ids.values
            snapshots.write(Snapshot(manifest, embeddings.embeddings, *ids))
        self.promote = snapshots.promote
        self.own: dict[str, set[str]] = {}
        store = EdgeStore.begin(self.settings.edge_store, self.settings.kafka_topic)
        wait_for_topics(self.settings, threading.Event(), log)
        store.begin_log(topic_id(self.settings), None)  # as the consumer does
        self._publisher = Publisher(self.settings)

    def touch(self, *pairs: tuple[str, str]) -> None:
        for user, item in pairs:
            self.own.setdefault(user, set()).add(item)
            event = Event(user, item, 1.0, int(time.time() * 1000), "view")
            self._publisher.send(self.settings.kafka_topic, encode(event), user.encode())
        self._publisher.flush()

    def right(self) -> bool:
        """Whether every list is there, of its user's block, without what the user has."""
        for user, own in self.own.items():
            found = self.store.user(user)
            if found is None or own & set(found.items):
                return False
            assert {item.split("-")[0] for item in found.items} == {user.split("-")[0]}
        found = self.store.neighbors("2-2")
        return bool(found and found.items and self.store.popular() and self.store.model())

    @contextmanager
    def running(self) -> Iterator[None]:
        self.promote(FIRST)
        self.touch(*PAIRS)
        with self.serving():
            wait_for("the lists", self.right)
            yield

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The loop alone, whatever is in Redis."""

        def run(stop: threading.Event) -> None:
            serve.run(self.settings, Running(stop, Figures("serving"), Health()))

        with closing(self._publisher), closing(self.store), running(run):
            yield


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    port = free_port()
    server = Broker(redis_command(port), port, tmp_path_factory.mktemp("redis") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def redis(redis_server: Broker) -> Iterator[Redis]:
    with Redis.from_url(f"redis://{redis_server.address}") as client:
        yield client


@pytest.fixture(scope="module")
def serving(
    embedded: str, redis_server: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("outage")
    made = Serving(folder, embedded, f"redis://{redis_server.address}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_outage, "STEADY", 1.5)
        with made.running():
            yield made


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def failed_tries(monkeypatch: pytest.MonkeyPatch) -> list[RedisDown]:
    """What serving's tries to reach Redis failed with, in the test so far."""
    found: list[RedisDown] = []
    failed = RedisOutage.failed

    def noted(self: RedisOutage, error: RedisDown) -> None:
        found.append(error)
        failed(self, error)

    monkeypatch.setattr(RedisOutage, "failed", noted)
    return found


def answer(serving: Serving, ask: Callable[[Store], T]) -> T | None:
    """What Redis says, None while Redis gives no answer."""
    with suppress(RedisDown):
        return ask(serving.store)
    return None


def sentences(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What serving logged, without its lines of figures and those of the consumer group."""
    others = ("served", "Reading partitions", "Stopped reading partitions")
    records = [record for record in caplog.records if record.name == "serving"]
    return [each.message for each in records if not each.message.startswith(others)]


def test_near_its_limit_of_memory_redis_is_not_said_to_come_and_go(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(redis_outage, "time", SimpleNamespace(monotonic=lambda: now))
    state = RedisOutage(log)
    full = RedisRefuses("Redis is out of memory", "OOM")
    for now in (10.0, 16.0, 30.0, 90.0):
        assert not state.paused
        state.failed(full)
        assert state.paused
        now += 5.0
        assert not state.paused
        state.worked(left=True)  # it took one list and not the next
    now = 104.0
    state.worked(left=False)
    assert len(caplog.messages) == 1
    now = 105.1
    state.worked(left=True)
    state.worked(left=False)
    state.worked(left=False)
    assert caplog.messages == [
        "Redis is out of memory; lists are written when Redis takes writes again.",
        "Redis is back (away for 95 s).",
    ]


def test_a_redis_that_goes_on_refusing_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(redis_outage, "time", SimpleNamespace(monotonic=lambda: now))
    state = RedisOutage(log)
    tried = []
    while now < 600:
        if not state.paused:
            tried.append(now)
            state.failed(RedisRefuses("Redis is out of memory", "OOM"))
        now += 0.25
    assert [after - at for at, after in pairwise(tried)][:6] == [0.5, 1, 2, 4, 8, 16]
    assert max(after - at for at, after in pairwise(tried)) == redis_outage.LONGEST_REFUSED


def test_causes_that_follow_one_another_have_a_line_each(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_outage, "time", SimpleNamespace(monotonic=lambda: 10.0))
    state = RedisOutage(log)
    for error in (RedisDown("gone"), RedisRefuses("locked", "NOAUTH"), RedisDown("gone again")):
        state.failed(error)
    state.worked(left=False)
    assert [line.split(";")[0] for line in caplog.messages] == [
        "gone", "locked", "Redis is back (away for 0 s)."
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "mended", "line"),
    [
        (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"], "Redis is out of memory: raise"),
        (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"], "Redis is a read-only replica: name"),
        (
            ["CONFIG SET requirepass hunter2", "CLIENT KILL TYPE normal SKIPME yes"],
            ["CONFIG SET requirepass "],
            "Redis refuses the user and password that REDIS_URL gives or lacks: correct",
        ),
        (
            ["ACL SETUSER default -set"],
            ["ACL SETUSER default +@all"],
            "Redis does not let its user run SET: grant",
        ),
    ],
)
def test_a_redis_that_refuses_is_one_line_until_it_takes_what_waited(
    serving: Serving,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    failed_tries: list[RedisDown],
    broken: list[str],
    mended: list[str],
    line: str,
) -> None:
    for command in broken:
        redis.execute_command(*command.split(" "))
    newcomer = f"1-new-{broken[0]}"
    serving.touch((newcomer, "1-1"))
    wait_for("the line", lambda: any(line in told for told in caplog.messages))
    wait_for("several tries", lambda: len(failed_tries) > 2)
    assert len(sentences(caplog)) == 1
    for command in mended:
        redis.execute_command(*command.split(" "))
    wait_for("the newcomer's list", lambda: answer(serving, lambda store: store.user(newcomer)))
    wait_for("the other line", lambda: "Redis is back" in caplog.text)
    assert len(sentences(caplog)) == 2
    assert serving.right()


def test_a_redis_that_was_killed_and_comes_back_empty_gets_all_lists_again(
    serving: Serving,
    redis_server: Broker,
    caplog: pytest.LogCaptureFixture,
    failed_tries: list[RedisDown],
) -> None:
    redis_server.kill()
    serving.touch(("3-new", "3-1"))
    wait_for("the line", lambda: "Redis does not answer" in caplog.text)
    wait_for("several tries", lambda: len(failed_tries) > 2)
    assert len(sentences(caplog)) == 1
    redis_server.start()
    wait_for("the lists", serving.right)
    wait_for("the last line", lambda: "Wrote all lists" in caplog.text)
    assert [line.split(" ")[:3] for line in sentences(caplog)] == [
        ["Redis", "does", "not"],
        ["Redis", "was", "restarted"],
        ["Writing", "all", "lists"],
        ["Redis", "is", "back"],
        ["Wrote", "all", "lists"],
    ]


def test_a_redis_that_was_flushed_gets_all_lists_again(
    serving: Serving, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.flushall()
    wait_for("the line", lambda: "restarted or flushed" in caplog.text)
    wait_for("the lists", serving.right)
    assert "Redis is back" not in caplog.text


def test_a_list_that_cannot_be_made_costs_no_other_and_is_made_once_it_can_be(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lists = Recommender.lists

    def poisoned(self: Recommender, users: list[str], *more: Any) -> Any:
        if "1-poison" in users:
            raise ZeroDivisionError("nobody foresaw this")
        return lists(self, users, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "lists", poisoned)
        serving.touch(("1-poison", "1-1"), *((f"1-healthy {n}", "1-2") for n in range(20)))
        del serving.own["1-poison"]
        wait_for("the others' lists", serving.right)
        assert serving.store.user("1-poison") is None
    wait_for("the list", lambda: answer(serving, lambda store: store.user("1-poison")))
    assert caplog.text.count("nobody foresaw this") == 1
    assert "fault of StreamGCN (ZeroDivisionError" in caplog.text


def test_a_full_redis_begins_one_publish_which_goes_on_when_there_is_room(
    serving: Serving,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    failed_tries: list[RedisDown],
) -> None:
    redis.config_set("maxmemory", 1)
    serving.promote(SECOND)
    wait_for("the line", lambda: "out of memory" in caplog.text)
    wait_for("several tries", lambda: len(failed_tries) > 2)
    redis.config_set("maxmemory", 0)
    wait_for("the end", lambda: "Wrote all lists of model 2" in caplog.text)
    assert caplog.text.count("Writing all lists") == 1
    assert caplog.text.count("out of memory") == 1
    wait_for("the lists", serving.right)
    serving.promote(FIRST)
    wait_for("the first model", lambda: serving.store.model().get("version") == FIRST)


def test_what_a_flush_takes_in_the_middle_of_a_publish_is_written_too(
    serving: Serving,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flushed: list[float] = []
    written = AllLists.written

    def interrupted(publish: AllLists) -> None:
        written(publish)
        if publish.progress and not flushed:
            flushed.append(publish.progress)
            redis.flushall()

    monkeypatch.setattr(AllLists, "written", interrupted)
    serving.promote(SECOND)
    wait_for("the flush", lambda: flushed)
    assert 0 < flushed[0] < 1  # users' lists were written, the rest was not
    wait_for("the end", lambda: "Wrote all lists of model 2" in caplog.text)
    wait_for("the lists", serving.right)
    serving.promote(FIRST)
    wait_for("the first model", lambda: serving.store.model().get("version") == FIRST)


def test_a_damaged_live_snapshot_is_passed_over_and_the_model_in_use_stays(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str | None] = []
    version = LiveModel.version

    def noted(self: LiveModel) -> str | None:
        looks.append(version(self))
        return looks[-1]

    monkeypatch.setattr(LiveModel, "version", noted)
    damaged = Path(serving.settings.model_store) / SECOND
    (damaged / "tables.safetensors").write_bytes(b"\x00" * 9)
    serving.promote(SECOND)
    wait_for("the line", lambda: f"Snapshot {SECOND} cannot be used" in caplog.text)
    serving.touch(("1-new", "1-1"))
    wait_for("the lists", serving.right)
    looks.clear()
    wait_for("several looks", lambda: len(looks) > 2)
    assert len(sentences(caplog)) == 1
    assert serving.store.model().get("version") == FIRST


def test_an_old_dump_does_not_bring_back_the_list_of_a_forgotten_user(
    embedded: str, tmp_path: Path
) -> None:
    port = free_port()
    server = Broker([*redis_command(port), "--dir", str(tmp_path)], port, tmp_path / "log")
    with ExitStack() as stack:
        stack.callback(server.stop)
        made = Serving(tmp_path, embedded, f"redis://{server.address}")
        redis = stack.enter_context(Redis.from_url(f"redis://{server.address}"))
        stack.enter_context(made.running())
        redis.save()
        forget.publish(made.settings, "0-1")
        del made.own["0-1"]
        wait_for("the list to go", lambda: made.store.user("0-1") is None)
        server.kill_and_restart()
        wait_for("the dump", lambda: answer(made, Store.model))
        wait_for("the list to go again", lambda: made.store.user("0-1") is None)
        wait_for("the others", made.right)
        assert made.store.user("0-1") is None


def test_on_a_cluster_lists_are_published_refreshed_and_forgotten(
    embedded: str, tmp_path: Path
) -> None:
    with redis_cluster(tmp_path) as urls:
        made = Serving(tmp_path, embedded, urls[2])
        with made.running():
            made.touch(("2-new", "2-1"))
            wait_for("the newcomer's list", made.right)
            forget.publish(made.settings, "2-3")
            wait_for("the list to go", lambda: made.store.user("2-3") is None)
            wait_for("the model", lambda: made.store.model().get("version") == FIRST)
            del made.own["2-3"]
            for url in urls:
                with Redis.from_url(url) as node:
                    node.flushall()
            wait_for("the lists again", made.right)
            assert made.store.user("2-3") is None
