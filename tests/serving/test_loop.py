"""The loop, round by round, on a topic in memory and a real Redis."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch

from consumer.edge.store import EdgeStore
from consumer.event.json import FORGET, Event, encode
from consumer.event.rules import ONLY_HERE
from consumer.kafka.client import Headers
from process.health import Health
from process.log import Figures
from process.running import Running
from serving.edges.steps import Held
from serving.edges.user_edges import UserEdges
from serving.items.served_model import ServedModel
from serving.lists.recommender import Recommender
from serving.loop import partitions
from serving.loop.forgetting import Forgetting
from serving.loop.growing import Growing
from serving.loop.loop import ServingLoop
from serving.loop.model_slot import ModelSlot
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.settings import ServingSettings
from tests.fake_topic import FakeReader, FakeTopic
from tests.graphs import append, blocks, pairs
from tests.graphs import store as store_of
from tests.services import PATIENCE, real_redis, wait_for
from trainer.fit.fit import fit
from trainer.graph.weights import Weighing
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.hyperparameters import Hyperparameters

FIRST, SECOND = "20260101T000000.0Z", "20260102T000000.0Z"
GRAPH = blocks(users=10)
log = logging.getLogger("serving")


class Loop:
    """A loop whose topic and stores the test holds.

    load_second: set to let the second model be loaded.
    """

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        n_partitions: int = 1,
        others: tuple[FakeTopic, EdgeStore, str] | None = None,
    ) -> None:
        """The rows of GRAPH are in the edge store, and the topic begins after them.

        Args:
            others: topic, edge store and prefix in Redis that this loop shares with others.
        """
        if others is None:
            topic = FakeTopic(n_partitions, begins=len(GRAPH), has_id=False)
            others = topic, store_of(folder / "edges", pairs(GRAPH)), folder.name
        self.folder = folder
        self.topic, self.rows, prefix = others
        self.reader = FakeReader(self.topic)
        settings = ServingSettings(
            edge_store=str(folder / "edges"), model_store=str(folder / "models"), kafka_topic="t",
            redis_url=redis_url, redis_prefix=prefix, top_k=3, device="cpu",
        )  # fmt: skip
        self.snapshots = Snapshots(settings.model_store)
        self.store = Store(redis_url, settings.redis_prefix)
        self.edges = UserEdges(Weighing(), held=frozenset())
        self.load_second = threading.Event()
        forgetting = Forgetting(self.store, self.edges)
        edge_store = EdgeStore(settings.edge_store, "t")
        self.growing = Growing(edge_store, "t", self.edges, forgetting, log)
        live = LiveModel(self.snapshots, log)
        self.slot = ModelSlot(live, self._prepare, self.edges, forgetting, log)
        self.process = Running(threading.Event(), Figures("serving"), Health())
        self.loop = ServingLoop(
            settings, self.process, self.store, self.reader, self.edges,
            self.growing, forgetting, self.slot, log,
        )  # fmt: skip

    def _prepare(self, snapshot: Snapshot) -> Recommender:
        if snapshot.manifest.version == SECOND:
            assert self.load_second.wait(PATIENCE)
        return Recommender(ServedModel(snapshot, torch.device("cpu")), 3)

    def promote(self, version: str, order: float = 0.0) -> None:
        """A model goes live; without `order` it has a row for each user."""
        chosen = Hyperparameters(dim=8, epochs=5, vectors=4, learned_order=order)
        fitted = fit(GRAPH, chosen.usual())
        embeddings = fitted.embeddings
        manifest = Manifest(
            version, embeddings.model, embeddings.layers, embeddings.cosine, 7, GRAPH.n_users,
            GRAPH.n_items, len(GRAPH), 1, {}, asdict(fitted.settings), {}, {}, parts=3,
        )  # fmt: skip
        ids = GRAPH.user_ids.values, GRAPH.item_ids.values
        self.snapshots.write(Snapshot(manifest, embeddings, *ids))
        self.snapshots.promote(version)

    def publish(
        self, user: str, item: str, partition: int = 0, type: str = "view", headers: Headers = ()
    ) -> None:
        value = encode(Event(user, item, 1.0, int(time.time() * 1000), type))
        self.topic.send(partition, value, headers, user.encode())

    def go_on(self, what: str, until: Callable[[], object]) -> None:
        """Rounds until the condition holds."""

        def look() -> object:
            self.loop.round()
            return until()

        wait_for(what, look)

    def has_newer(self, user: str, first: Recommendations) -> bool:
        """Whether the user has a list that was made after `first`."""
        found = self.store.user(user)
        return found is not None and found.updated_at > first.updated_at

    def start(self, *given: int) -> None:
        """Until all lists of the first model are written."""
        self.promote(FIRST)
        self.reader.assign(*(given or (0,)))
        self.go_on("the first model's lists", lambda: self.published(FIRST, *(given or (0,))))

    def published(self, version: str, *given: int) -> bool:
        found = self.store.published(given)
        return found.keys() == set(given) and all(e.startswith(version) for e in found.values())

    def put(self, user: str, event_at: int) -> None:
        """A list that another process has written."""
        value = Recommendations(["2-3"], [0.5], ["2-1"], FIRST, "live", event_at, event_at)
        self.store.put_users([user], [msgspec.json.encode(value)])
        assert self.store.user(user)

    def close(self) -> None:
        self.load_second.set()
        self.slot.close()
        self.growing.close()
        self.store.close()


@pytest.fixture
def loop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setattr(partitions, "COMMIT_EVERY", 0.0)
    made = Loop(tmp_path, redis_url, n_partitions=2)
    yield made
    made.close()


def test_an_event_is_answered_by_a_new_list_and_then_committed(loop: Loop) -> None:
    loop.start()
    loop.publish("0-1", "0-3")
    loop.publish("newcomer", "2-3")
    loop.go_on("the lists", lambda: loop.store.user("newcomer"))
    found = loop.store.user("newcomer")
    assert found
    assert found.source == "live"
    assert {item.split("-")[0] for item in found.items} == {"2"}
    loop.go_on("the commit", lambda: loop.reader.committed_offsets == {0: len(GRAPH) + 2})


@pytest.mark.parametrize("mine", [(0, 1), (0,)])
def test_a_model_with_rows_of_users_is_loaded_once_before_its_lists_are_written(
    loop: Loop, mine: tuple[int, ...]
) -> None:
    loop.promote(FIRST)
    loop.go_on("the model", lambda: loop.slot.recommender)  # before the partitions are known
    first = loop.slot.recommender
    loop.reader.assign(*mine)
    loop.go_on("the lists", lambda: loop.published(FIRST, *mine))
    if len(mine) == 2:
        for _ in range(20):
            loop.loop.round()
        assert loop.slot.recommender is first
    else:
        loop.go_on("the rows of own users alone", lambda: loop.slot.recommender is not first)
    assert loop.slot.has_rows


def test_events_are_answered_from_the_model_in_use_while_the_next_one_is_loaded(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loop.start()
    loop.promote(SECOND)
    loop.go_on("the loading", lambda: loop.slot._loading)
    for number in range(5):
        loop.publish(f"newcomer {number}", "1-2")
        user = f"newcomer {number}"
        loop.go_on("the list", partial(loop.store.user, user))
        found = loop.store.user(user)
        assert found
        assert found.model == FIRST
    loop.publish("0-1", "", type="forget")
    loop.go_on("the list to go", lambda: not loop.store.user("0-1"))
    assert loop.slot.version == FIRST
    loop.load_second.set()
    loop.go_on("the second model's lists", lambda: loop.published(SECOND, 0))
    assert f"New lists are made from model {SECOND}" in caplog.text
    for user in (f"newcomer {number}" for number in range(5)):
        found = loop.store.user(user)
        assert found
        assert found.model == SECOND
    assert not loop.store.user("0-1")
    recommender = loop.slot.recommender
    assert recommender
    assert "0-1" not in recommender.model._users  # who was forgotten while it was loaded


def test_events_are_answered_while_the_store_of_models_does_not_say_what_is_live(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.start()
    asked, answer = threading.Event(), threading.Event()
    version = loop.slot._live.version

    def hang() -> str | None:
        asked.set()
        assert answer.wait(PATIENCE)
        return version()

    monkeypatch.setattr(loop.slot._live, "version", hang)
    loop.go_on("the question", asked.is_set)
    loop.publish("newcomer", "1-2")
    loop.go_on("the list", partial(loop.store.user, "newcomer"))
    loop.load_second.set()
    loop.promote(SECOND)
    answer.set()
    loop.go_on("the second model", lambda: loop.slot.version == SECOND)


def test_a_list_stays_due_while_nobody_knows_whether_there_is_a_model(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(loop.slot._live, "version", lambda: answer.wait(PATIENCE) and None)
    loop.reader.assign(0)
    loop.publish("newcomer", "1-2")
    loop.go_on("the event", lambda: loop.loop._due)
    for _ in range(5):
        loop.loop.round()
        assert loop.loop._due
    answer.set()
    loop.go_on("that there is no model", lambda: not loop.loop._due)


def test_a_model_that_cannot_be_prepared_leaves_the_model_in_use_and_is_tried_again(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.start()
    prepare, failures = loop.slot._prepare, [MemoryError("no room")]

    def fail_once(snapshot: Snapshot) -> Recommender:
        if failures:
            raise failures.pop()
        return prepare(snapshot)

    loop.slot._prepare = fail_once
    loop.load_second.set()
    loop.promote(SECOND)
    loop.publish("newcomer", "1-2")
    loop.go_on("the second model's lists", lambda: loop.published(SECOND, 0))
    assert caplog.text.count("no room") == 1
    assert loop.store.user("newcomer")


def test_before_there_is_a_model_events_are_read_and_answered_by_the_first_publication(
    loop: Loop,
) -> None:
    loop.reader.assign(0)
    loop.publish("newcomer", "2-3")
    loop.go_on("the commit", lambda: loop.reader.committed_offsets == {0: len(GRAPH) + 1})
    assert loop.store.user("newcomer") is None
    assert loop.store.popular()
    loop.promote(FIRST)
    loop.go_on("the list", lambda: loop.store.user("newcomer"))


def test_while_redis_is_away_the_edges_grow_and_the_next_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.growing.CHANGED_USERS", 1)
    with real_redis(tmp_path) as url:
        loop = Loop(tmp_path, url)
        loop.start()
    loop.publish("one", "0-1")
    loop.go_on("the outage", lambda: loop.loop._outage.trouble)
    append(loop.rows, [("one", "0-1")], len(GRAPH))
    loop.go_on("the growth", lambda: not loop.edges.changed)
    loop.load_second.set()
    loop.promote(SECOND)
    loop.go_on("the second model", lambda: loop.slot.version == SECOND)
    assert loop.loop._outage.trouble
    loop.close()


def test_a_lost_partition_is_not_written_and_goes_on_where_it_was_answered(loop: Loop) -> None:
    loop.start()
    append(loop.rows, [("one", "0-1"), ("another", "0-1")], len(GRAPH))  # before serving reads them
    loop.publish("one", "0-1")
    loop.go_on("the list", lambda: loop.store.user("one"))
    loop.go_on("the commit", lambda: loop.reader.committed_offsets.get(0) == len(GRAPH) + 1)
    loop.publish("another", "0-1")
    loop.loop._read()  # it is read, and not answered
    loop.reader.assign()
    loop.publish("third", "0-1")
    for _ in range(5):
        loop.loop.round()
    assert not loop.store.user("another")  # it is another process's now
    loop.reader.assign(0)
    loop.go_on("both lists", lambda: loop.store.user("another") and loop.store.user("third"))
    assert loop.reader.started[0] == len(GRAPH) + 1


@pytest.mark.parametrize("in_a_heartbeat", [False, True])
def test_a_list_that_was_begun_before_a_rebalance_in_a_polls_midst_is_not_written_after_it(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, in_a_heartbeat: bool
) -> None:
    monkeypatch.setattr("serving.loop.loop.LIFE_EVERY", 0.0)
    loop.start()
    loop.publish("one", "0-1")
    loop.go_on("the block", lambda: loop.loop._blocks._block)
    assert not loop.store.user("one")
    loop.publish("another", "0-1")
    with monkeypatch.context() as patch:
        hook = "heartbeat" if in_a_heartbeat else "before_messages"
        patch.setattr(loop.reader, hook, loop.reader.assign)
        loop.loop.round()
    for _ in range(3):
        loop.loop.round()
    assert not loop.store.user("one")  # it is another process's now
    loop.reader.assign(0)
    loop.go_on("both lists", lambda: loop.store.user("one") and loop.store.user("another"))


def test_a_process_stays_a_member_of_the_group_while_one_window_of_the_edge_store_takes_long(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.heartbeats.HEARTBEAT_EVERY", 0.001)
    beats = threading.Semaphore(0)
    monkeypatch.setattr(loop.reader, "heartbeat", beats.release)
    in_time: list[bool] = []
    hold = Growing.hold

    def long_read(self: Growing, held: Held) -> Iterator[None]:
        in_time.append(all(beats.acquire(timeout=PATIENCE) for _ in range(3)))
        yield from hold(self, held)

    monkeypatch.setattr(Growing, "hold", long_read)
    loop.start()
    assert in_time == [True]


def test_where_the_edge_store_cannot_tell_the_place_the_log_is_told_to_ask_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(EdgeStore, "log", lambda *_: None)
        patch.setattr(EdgeStore, "before_logs", lambda _: {})
        loop.reader.assign(0)
        loop.loop.round()
        assert "has not begun with this log of topic t" in str(loop.reader.postponed[0])
        assert not loop.reader.started
    loop.loop.round()
    assert loop.reader.started == {0: len(GRAPH)}


def test_serving_says_that_kafka_has_lost_messages_where_the_same_topic_is_read_as_another_log(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.topic.id = "an id"
    known = loop.rows.begin_log("an id", known=None)
    loop.start()
    loop.rows.begin_log("an id", known)
    loop.reader.restart()
    loop.go_on("the place", lambda: loop.reader.started == {0: None})
    assert "Kafka has lost messages of it" in caplog.text
    assert "was created anew" not in caplog.text


def test_lists_are_written_again_where_the_edge_store_tells_another_order_than_the_log(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.growing.SETTLE_AFTER", 0.0)
    monkeypatch.setattr("serving.loop.growing.TIMES_AS_LONG", 0.0)
    loop.start(0, 1)
    loop.publish("0-1", "3-1", partition=1)  # its other events are of partition 0
    loop.go_on("the list", lambda: (found := loop.store.user("0-1")) and found.event_at > 9)
    first = loop.store.user("0-1")
    assert first
    append(loop.rows, [("0-1", "3-2", 1.0, 9)], len(GRAPH), partition=0)
    append(loop.rows, [("0-1", "3-1", 1.0, 9)], 0, partition=1)
    loop.go_on("the growth", lambda: not loop.edges.unsettled)
    assert {"3-1", "3-2"} <= loop.edges.items("0-1").keys()
    loop.go_on("the list of the other order", lambda: loop.has_newer("0-1", first))


def test_a_list_is_written_again_for_another_order_that_is_told_while_no_partition_is_read(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.growing.SETTLE_AFTER", 0.0)
    monkeypatch.setattr("serving.loop.growing.TIMES_AS_LONG", 0.0)
    loop.start(0, 1)
    loop.publish("0-1", "3-1", partition=1)  # its other events are of partition 0
    loop.go_on("the list", lambda: (found := loop.store.user("0-1")) and found.event_at > 9)
    loop.go_on("the commit", lambda: loop.reader.committed_offsets.get(1) == 1)
    first = loop.store.user("0-1")
    assert first
    loop.reader.assign()  # a rebalance
    loop.loop.round()
    append(loop.rows, [("0-1", "3-2", 1.0, 9)], len(GRAPH), partition=0)
    append(loop.rows, [("0-1", "3-1", 1.0, 9)], 0, partition=1)
    loop.go_on("the growth", lambda: not loop.edges.unsettled)
    loop.reader.assign(0, 1)
    loop.go_on("a newer list", lambda: loop.has_newer("0-1", first))


def test_who_is_due_without_an_event_stays_due_when_the_partition_is_lost_and_comes_back(
    loop: Loop,
) -> None:
    loop.start(0, 1)
    first = loop.store.user("0-1")
    assert first
    loop.loop._due.add_without_event("0-1", 0)
    loop.reader.assign(0, 1)
    loop.go_on("a newer list", lambda: loop.has_newer("0-1", first))


def test_a_list_of_a_user_without_an_edge_left_goes_once_the_partition_has_come_here(
    loop: Loop,
) -> None:
    loop.loop._expiry._retention._days = 1.0
    loop.start()
    loop.go_on("the look at all lists", lambda: not loop.loop._forgetting.working)
    loop.put("user of the other process", 5)
    loop.reader.assign(0, 1)
    loop.go_on("both partitions", lambda: loop.loop._partitions.mine == {0, 1})
    loop.loop._expiry._retention._at = 0.0
    loop.go_on("the list to go", lambda: not loop.store.user("user of the other process"))


def test_lists_that_were_to_be_deleted_when_a_partition_was_lost_are_looked_at_again(
    loop: Loop,
) -> None:
    loop.loop._expiry._retention._days = 1.0
    loop.start()
    loop.go_on("the look at all lists", lambda: not loop.loop._forgetting.working)
    old, newer = "expired", "with a list of the new owner"
    now = int(time.time() * 1000)
    loop.put(old, 5)
    loop.put(newer, now)
    loop.loop._forgetting.note_expired([old, newer])
    loop.reader.assign(0)
    loop.loop._read()
    loop.loop._expiry._retention._at = 0.0
    loop.go_on("the list to go", lambda: not loop.store.user(old))
    assert loop.store.user(newer)


def test_lists_of_expired_users_that_an_old_dump_of_redis_brings_back_go_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.loop._expiry._retention._days = 1.0
    loop.start()
    loop.go_on("the look at all lists", lambda: not loop.loop._forgetting.working)
    with monkeypatch.context() as patch:
        patch.setattr(loop.loop._watch, "look", lambda: True)  # Redis is back with a dump
        loop.put("expired", 5)
        loop.loop._looked_at = 0.0
        loop.loop.round()
    loop.loop._expiry._retention._at = 0.0
    loop.go_on("the list to go", lambda: not loop.store.user("expired"))


def test_lists_of_users_whose_edges_expire_go_or_are_written_again(loop: Loop) -> None:
    loop.start()
    loop.publish("0-1", "1-2")  # all other edges are of long ago
    loop.go_on("the list", lambda: (found := loop.store.user("0-1")) and found.event_at > 9)
    first = loop.store.user("0-1")
    assert first
    loop.loop._expiry._retention._days = 1.0
    loop.go_on("the list to go", lambda: not loop.store.user("0-2"))
    loop.go_on("the list of the one edge left", lambda: loop.has_newer("0-1", first))
    assert loop.edges.users() == ["0-1"]


def test_a_forget_of_another_partition_alone_leaves_a_user_the_list(loop: Loop) -> None:
    loop.start(0, 1)
    loop.publish("newcomer", "2-3", partition=1)
    loop.go_on("the list", lambda: loop.store.user("newcomer"))
    loop.publish("newcomer", "", partition=0, type=FORGET, headers=(ONLY_HERE,))
    loop.go_on("the commit", lambda: loop.reader.committed_offsets.get(0) == len(GRAPH) + 1)
    assert loop.store.user("newcomer")


def test_an_item_that_the_model_has_not_seen_is_recommended_once_three_users_like_it(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.model_slot.NEW_ITEMS_EVERY", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_AFTER", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_TIMES", 0.0)
    loop.start()
    for number in range(6):
        loop.publish(f"2-{number}", "brand new")
    loop.go_on("the similar items", lambda: loop.store.neighbors("brand new"))

    def recommended() -> bool:
        found = (loop.store.user(f"2-{number}") for number in range(6, 10))
        return any(each and "brand new" in each.items for each in found)

    loop.go_on("a list with it", recommended)


def test_the_log_says_that_lists_are_written_again_for_an_edge_store_that_was_replaced(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("serving.loop.growing.LOOK_EVERY", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_AFTER", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_TIMES", 0.0)
    loop.start()
    shutil.rmtree(tmp_path / "edges")
    store_of(tmp_path / "edges", [*pairs(GRAPH), ("newcomer", "2-3")])
    loop.go_on("the list", lambda: loop.store.user("newcomer"))
    assert "again for the users of partitions [0]: the whole edge store was read" in caplog.text
    assert "newer than the model" not in caplog.text


@pytest.mark.parametrize("half_way", [False, True])
def test_lists_are_written_again_for_a_replaced_edge_store_also_of_partitions_that_come_later(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_way: bool
) -> None:
    monkeypatch.setattr("serving.loop.growing.LOOK_EVERY", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_AFTER", 0.0)
    monkeypatch.setattr("serving.loop.publication.RENEW_TIMES", 0.0)
    loop.start(0, 1)
    first = loop.store.user("0-1")  # whose events are in partition 0
    assert first
    loop.reader.assign(*([1] if half_way else []))
    loop.loop.round()
    shutil.rmtree(tmp_path / "edges")
    other = store_of(tmp_path / "edges", [*pairs(GRAPH), ("0-1", "2-3")])
    loop.go_on("the other edges", lambda: loop.edges.watermark.table == other.id)
    loop.reader.assign(0, 1)
    loop.go_on("a newer list", lambda: loop.has_newer("0-1", first))


def test_lists_that_cannot_be_deleted_do_not_keep_the_loop_busy_until_they_are_tried_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.start()

    def fail(_: Forgetting) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(Forgetting, "step", fail)
    monkeypatch.setattr("serving.loop.safety_net.FIRST_SECONDS", 60.0)
    loop.loop._forgetting.note("0-1")
    loop.go_on("the failure", lambda: loop.loop._net.paused("deleting lists"))
    loop.go_on("all else", lambda: not loop.loop._due and not loop.loop._blocks._block)
    assert loop.loop._forgetting.working
    assert loop.loop._wait() > 0


def test_garbage_of_the_time_before_a_model_is_put_in_place_does_not_stay_for_ever(
    loop: Loop,
) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()  # so that the garbage is there when the model comes
    try:
        garbage = weakref.ref(Cycle())
        loop.start()
        gc.collect()
        assert garbage() is None
    finally:
        gc.enable()


def test_events_of_a_partition_that_was_empty_are_answered_by_another_process_after_a_crash(
    loop: Loop, redis_url: str
) -> None:
    loop.start(1)
    loop.publish("newcomer", "2-3", partition=1)
    append(loop.rows, [("newcomer", "2-3")], 0, partition=1)
    loop.loop._read()  # it is read, not answered, and the process is killed
    others = loop.topic, loop.rows, loop.folder.name
    other = Loop(loop.folder, redis_url, others=others)
    other.reader.committed_offsets |= loop.reader.committed_offsets
    other.reader.assign(0, 1)
    try:
        other.go_on("the list", lambda: other.store.user("newcomer"))
    finally:
        other.close()
