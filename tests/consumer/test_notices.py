"""The row that is left of a forgotten user is nobody's: no id can be chosen that reaches it."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from consumer.edge.store import EdgeStore, Watermark
from consumer.edge.table import Table
from consumer.edge.traces import digest
from consumer.event.json import FORGET, Event, encode
from consumer.event.rules import ONLY_HERE
from consumer.ingest.batch import Batch
from consumer.kafka.client import Headers, Message
from tests.graphs import append, pairs, stored
from tests.ingesting import likes
from trainer.graph.growth import grow
from trainer.graph.interactions import InteractionGraph

GONE = "gone"
NAMESAKE = digest(GONE)  # a user whose id is what stands in the notice on the other one


def write(store: EdgeStore, first: int, *events: Event, headers: Headers = ()) -> None:
    """One commit of events of partition 0, from offset `first` on."""
    made = Batch()
    messages = [
        Message("t", 0, first + n, 1_700_000_000_000, b"k", encode(event), headers)
        for n, event in enumerate(events)
    ]
    made.take(messages, first or None, time.time_ns() // 1000)
    made.write(store, store.newest())


def forget(user: str) -> Event:
    return Event(user, "", 1.0, 1_700_000_000_000, FORGET)


@pytest.mark.parametrize("headers", [[], [ONLY_HERE]], ids=["everywhere", "in one partition"])
def test_to_forget_a_user_whose_id_is_the_digest_of_another_leaves_the_notice_on_the_other(
    tmp_path: Path, headers: Headers
) -> None:
    store = EdgeStore.begin(str(tmp_path / "edges"), "t")
    write(store, 0, *likes(GONE, ["a"]), *likes(NAMESAKE, ["b"]), *likes("here", ["c"]))
    reader = InteractionGraph()
    *_, step = grow(reader, store, Watermark())
    write(store, 3, forget(GONE))
    assert store.rows_of(NAMESAKE)["item_id"].to_pylist() == ["b"]
    write(store, 4, forget(NAMESAKE), headers=headers)
    assert store.of_user(NAMESAKE, {0: 4}) == 0
    assert store.files_with(NAMESAKE, {0: 4}) == []
    for _ in grow(reader, store, step.watermark):  # it has not read the notices yet
        pass
    assert pairs(reader) == [("here", "c")]
    count = store.count()
    write(store, 5, forget(NAMESAKE), headers=headers)  # who has nothing but the other's notice
    assert store.count() == count


def test_many_users_are_forgotten_in_several_commits_as_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.edge.erase.TOGETHER", 2)
    store = EdgeStore.begin(str(tmp_path / "edges"), "t")
    users = [f"u{n}" for n in range(5)]
    write(store, 0, *[event for user in [*users, "stays"] for event in likes(user, ["a"])])
    overwrite, sizes = Table.overwrite, []

    def noted(table: Table, made: pa.Table, *rest: Any) -> None:
        sizes.append(len(made))
        overwrite(table, made, *rest)

    monkeypatch.setattr(Table, "overwrite", noted)
    write(store, 6, *map(forget, users))
    rows = stored(store)
    assert rows.filter(pc.not_equal(rows["type"], FORGET))["user_id"].to_pylist() == ["stays"]
    notices = rows.filter(pc.equal(rows["type"], FORGET))
    assert Counter(notices["user_id"].to_pylist()) == Counter(map(digest, users))
    assert store.next_offset(0) == 11
    assert sizes == [2, 2, 1]


def test_users_are_forgotten_while_another_consumer_commits_between_the_reading_and_each_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.edge.erase.TOGETHER", 2)
    monkeypatch.setattr("consumer.edge.conflicts.TRIES", 3)
    store = EdgeStore.begin(str(tmp_path / "edges"), "t")
    other = EdgeStore.begin(str(tmp_path / "edges"), "t")
    users = [f"u{n}" for n in range(6)]
    write(store, 0, *[event for user in users for event in likes(user, ["a"])])
    overwrite, tries = Table.overwrite, list[Any]()

    def after_another_commit(table: Table, *given: Any) -> None:
        if len(tries) % 3 < 2:  # each commit of the erasure is overtaken twice
            append(other, [("stays", "a")], other.next_offset(1) or 0, partition=1)
        tries.append(given)
        overwrite(table, *given)

    monkeypatch.setattr(Table, "overwrite", after_another_commit)
    write(store, 6, *map(forget, users))
    assert len(tries) == 9
    rows = stored(store)
    assert set(rows.filter(pc.not_equal(rows["type"], FORGET))["user_id"].to_pylist()) == {"stays"}
    assert store.next_offset(0) == 12
