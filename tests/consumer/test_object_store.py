"""The edge store in a bucket of a server that speaks S3."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.edge import bucket
from consumer.edge.store import EdgeStore, Fenced, StoreError, Watermark
from consumer.edge.table import Table
from consumer.edge.tidy import vacuum
from consumer.event.json import FORGET, Event
from serving.settings import ServingSettings
from streamgcn.backup import BackupError, backup, restore
from tests.graphs import append, store, stored
from tests.ingesting import Topic, consuming, likes
from tests.object_store import edges_in_a_bucket, gate, objects
from tests.s3 import S3
from tests.services import ROOT, wait_for
from tests.threads import at_once
from tests.trainer.test_snapshots import NAMES, filled

# Commits until it is killed; a line for each commit that is done.
WRITER = """
import sys
from consumer.edge.store import EdgeStore
from tests.graphs import append
store = EdgeStore(sys.argv[1], "t")
for offset in range(1_000_000):
    append(store, [(f"u{offset}", "i")], offset, partition=1)
    print(offset, flush=True)
"""


@pytest.fixture
def uri(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    return edges_in_a_bucket(s3, monkeypatch)


@pytest.fixture
def topic(embedded: str, uri: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(embedded, tmp_path)
    made.settings = made.settings.model_copy(update={"edge_store": uri, "commit_seconds": 0.02})
    yield made
    made.publisher.close()


def test_two_consumers_with_many_small_commits_store_each_event_once(
    topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with consuming(topic.settings), consuming(topic.settings):
        wait_for("both", lambda: caplog.text.count("Reading partitions") > 1)
        for number in range(12):
            for partition in range(4):
                topic.publish(*likes("u", [f"{partition}-{number}"]), partition=partition)
            store = topic.wait_stored()
    rows = stored(store)
    expected = sorted(f"{partition}-{number}" for partition in range(4) for number in range(12))
    assert sorted(rows["item_id"].to_pylist()) == expected
    assert store.version > 12


def test_consumers_that_fence_each_other_all_the_time_store_each_event_once(topic: Topic) -> None:
    # Groups of their own, so that both are assigned every partition.
    with consuming(topic.settings), consuming(topic.into(topic.settings.edge_store)):
        for number in range(30):
            topic.publish(*likes("u", [f"i{number}"]), partition=number % 4)
        topic.wait_stored()
    assert sorted(topic.rows()["item_id"].to_pylist()) == sorted(f"i{n}" for n in range(30))


def test_a_writer_that_is_behind_is_fenced(uri: str) -> None:
    made, late = store(uri, [("u", "a")]), EdgeStore(uri, "t")
    append(made, [("u", "b")], 1)
    with pytest.raises(Fenced):
        append(late, [("u", "b")], 0)
    append(late, [("v", "c")], 0, partition=1)
    assert sorted(stored(made)["item_id"].to_pylist()) == ["a", "b", "c"]


def test_no_object_of_the_bucket_holds_a_user_who_was_forgotten(topic: Topic, uri: str) -> None:
    user = "the-user-who-is-gone"
    with consuming(topic.settings):
        topic.publish(*likes(user, ["a", "b"]), *likes("here", ["a"]))
        topic.publish(*likes(user, ["c"]), partition=3)
        store = topic.wait_stored()
        every = dict.fromkeys(range(4), 10**9)
        assert store.files_with(user, every)
        topic.publish(Event(user, "", 1.0, 1_700_000_000_000, FORGET))
        topic.wait_stored()
    assert store.files_with(user, every) == []
    bucket = uri.rsplit("/", 1)[0]
    assert [key for key, held in objects(bucket).items() if user.encode() in held] == []
    assert stored(store)["user_id"].to_pylist().count("here") == 1


def test_a_store_is_tidied_beside_a_writer_and_a_reader(uri: str) -> None:
    made = store(uri, [("u", "i0")])
    reader, tidier = EdgeStore(uri, "t"), EdgeStore(uri, "t")
    seen = [*stored(made)["item_id"].to_pylist()]

    def write() -> None:
        for number in range(1, 40):
            append(made, [("u", f"i{number}")], number)

    def read() -> None:
        watermark = Watermark()
        seen.clear()
        while len(seen) < 40:
            news = reader.news(watermark)
            for rows in news.read():
                seen.extend(rows["item_id"].to_pylist())
            watermark = news.end(watermark)

    def tidy() -> None:
        for _ in range(3):
            try:
                tidier.tidy()
            except StoreError as error:  # a writer was quicker; it is tidied at the next time
                logging.getLogger("test").info("%s", error)

    at_once(write, read, tidy)
    tidier.tidy()
    assert seen == [f"i{number}" for number in range(40)]
    assert sorted(stored(made)["item_id"].to_pylist()) == sorted(seen)
    held = [key for key in objects(uri) if key.endswith(".parquet") and "_delta_log" not in key]
    assert len(held) > 1  # replaced ones stay for readers,
    vacuum(Table(uri), hours=0, full=True)
    held = [key for key in objects(uri) if key.endswith(".parquet") and "_delta_log" not in key]
    assert len(held) == 1  # and go later
    assert stored(made).num_rows == 40


def test_what_a_killed_writer_has_left_is_not_read_and_goes(uri: str) -> None:
    made = store(uri, [("u", "a")])
    command = [sys.executable, "-c", WRITER, uri]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        done = [int(writer.stdout.readline()) for _ in range(5)]
        writer.kill()
        done += [int(line) for line in writer.stdout.read().split()]
    after = made.next_offset(1) or 0
    assert after - 1 - done[-1] in (0, 1)  # one may be stored without that it could say so
    # As a writer leaves it that is killed between the file and the commit.
    left = next(held for key, held in objects(uri).items() if key.endswith("snappy.parquet"))
    bucket.put(uri, "part-00000-left.snappy.parquet", left)
    append(made, [("v", "b")], after, partition=1)
    rows = stored(made)
    assert rows.num_rows == after + 2
    vacuum(Table(uri), hours=0, full=True)  # as tidying does, an hour later
    assert "part-00000-left.snappy.parquet" not in objects(uri)
    assert stored(made).equals(rows)


def test_an_object_store_that_is_away_for_a_while_is_waited_for_with_one_line_each(
    topic: Topic, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with gate(s3) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        with consuming(topic.settings):
            topic.publish(*likes("u", ["a"]))
            topic.wait_stored()
            way.shut()
            topic.publish(*likes("u", ["b"]))
            wait_for("the line", lambda: "A batch cannot be stored" in caplog.text)
            topic.publish(*likes("u", ["c"]))
            way.open()
            wait_for("the other line", lambda: "Batches are stored again" in caplog.text)
            topic.wait_stored()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    assert topic.rows()["item_id"].to_pylist() == ["a", "b", "c"]
    lines = [each.getMessage() for each in caplog.records if each.name == "consumer"]
    away = [line for line in lines if "A batch cannot be stored" in line]
    assert len(away) == 1, away
    assert way.address in away[0]
    assert sum("Batches are stored again" in line for line in lines) == 1
    assert sum("cannot be read" in line for line in lines) <= 1


def test_a_commit_whose_answer_is_lost_is_stored_once(
    topic: Topic, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[bytes] = []

    def loses(request: bytes) -> bool:
        commit = request.startswith(b"PUT ") and b"_delta_log/" in request.split(b"\r\n", 1)[0]
        if commit and b".json" in request.split(b"\r\n", 1)[0] and len(lost) < 3:
            lost.append(request)
            return True
        return False

    with gate(s3) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        with consuming(topic.settings):
            topic.publish(*likes("u", ["a"]))
            topic.wait_stored()
            way.loses = loses
            for item in "bcdef":
                topic.publish(*likes("u", [item]))
                topic.wait_stored()
    assert lost
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    assert topic.rows()["item_id"].to_pylist() == list("abcdef")


def test_a_backup_of_a_bucket_is_restored_to_another_one(
    uri: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store(uri, [("u", "i0")])
    for number in range(1, 15):  # past a checkpoint
        append(made, [("u", f"i{number}")], number)
    filled(tmp_path / "models", *NAMES[:2])

    def settings(edges: str, models: Path) -> ServingSettings:
        places = {"edge_store": edges, "model_store": str(models)}
        return ServingSettings.model_validate(places | {"kafka_topic": "t"})

    assert backup(settings(uri, tmp_path / "models"), tmp_path / "backup").rows == 15
    again = settings(edges_in_a_bucket(s3, monkeypatch), tmp_path / "again")
    assert restore(again, tmp_path / "backup").rows == 15
    restored = EdgeStore(again.edge_store, "t")
    assert stored(restored).equals(stored(made))
    append(restored, [("u", "late")], 15)
    assert restored.count() == 16
    with pytest.raises(BackupError, match="is not empty"):
        restore(settings(again.edge_store, tmp_path / "third"), tmp_path / "backup")
    assert not (tmp_path / "third").exists()


def test_a_restore_to_a_bucket_that_cannot_be_written_leaves_nothing(
    uri: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(uri, [("u", "a")])
    filled(tmp_path / "models", NAMES[0])
    place = {"edge_store": uri, "model_store": str(tmp_path / "models"), "kafka_topic": "t"}
    backup(ServingSettings.model_validate(place), tmp_path / "backup")
    again = place | {
        "edge_store": edges_in_a_bucket(s3, monkeypatch), "model_store": str(tmp_path / "again")
    }  # fmt: skip
    with gate(s3) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        puts = []

        def second(request: bytes) -> bool:
            puts.extend([request] if request.startswith(b"PUT ") else [])
            return len(puts) > 1

        way.loses = second
        with pytest.raises(StoreError):
            restore(ServingSettings.model_validate(again), tmp_path / "backup")
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    assert objects(again["edge_store"]) == {}
    assert not (tmp_path / "again").exists()
    assert restore(ServingSettings.model_validate(again), tmp_path / "backup").rows == 1
