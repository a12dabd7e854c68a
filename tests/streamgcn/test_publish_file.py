"""`streamgcn publish` to a real broker, and what a consumer makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumer.edge.store import EdgeStore
from consumer.kafka.topics import read_topic
from tests.ingesting import Topic, consuming
from tests.interactions import written
from tests.streamgcn.test_cli import streamgcn


def published(topic: Topic, *arguments: str) -> tuple[int, str]:
    """The exit code and all that `streamgcn publish` says."""
    ended = streamgcn(
        "publish", *arguments,
        KAFKA_BOOTSTRAP_SERVERS=topic.settings.kafka_bootstrap_servers,
        KAFKA_TOPIC=topic.settings.kafka_topic,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def stored(topic: Topic) -> list[tuple[str, str, float, str, int]]:
    """The rows of the topic's edge store in the order of the log, with epoch milliseconds."""
    rows = topic.rows()
    names = ("user_id", "item_id", "interaction", "type")
    times = [int(each.timestamp() * 1000) for each in rows["timestamp"].to_pylist()]
    return list(zip(*(rows[name].to_pylist() for name in names), times, strict=True))


NEWEST_FIRST = (
    "user_id,item_id,interaction,timestamp\n"
    "u1,i1,5,1790000300\nu1,i2,4,1790000200\nu1,i1,1,1790000100\n"
)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_file_that_is_newest_first_ends_at_the_newest_state(
    kafka: str, tmp_path: Path, form: list[str]
) -> None:
    topic = Topic(kafka, tmp_path)
    code, said = published(topic, written(tmp_path, "a.csv", NEWEST_FIRST), *form)
    assert code == 0, said
    with consuming(topic.settings):
        topic.wait_stored()
    expected = [
        ("u1", "i1", 1.0, "interaction", 1_790_000_100_000),
        ("u1", "i2", 4.0, "interaction", 1_790_000_200_000),
        ("u1", "i1", 5.0, "interaction", 1_790_000_300_000),
    ]
    assert stored(topic) == expected
    EdgeStore(topic.settings.edge_store, topic.settings.kafka_topic).tidy()
    assert stored(topic) == expected


def test_two_rows_of_one_pair_keep_their_order_also_after_tidying(
    embedded: str, tmp_path: Path
) -> None:
    topic = Topic(embedded, tmp_path)
    rng = np.random.default_rng(0)
    lines = [f"u{rng.integers(50)},i{rng.integers(20)},{n}" for n in range(5_000)]
    text = "user_id,item_id,interaction\n" + "\n".join(lines)
    with consuming(topic.settings):
        for _ in range(2):
            assert published(topic, written(tmp_path, "a.csv", text))[0] == 0
        topic.wait_stored()
    EdgeStore(topic.settings.edge_store, topic.settings.kafka_topic).tidy()
    last = {(user, item): weight for user, item, weight, *_ in stored(topic)}
    expected = {tuple(line.split(",")[:2]): float(line.split(",")[2]) for line in lines}
    assert last == expected


def test_bulk_and_json_give_the_same_events(embedded: str, tmp_path: Path) -> None:
    text = "user_id,item_id,interaction,timestamp,type\nu1,i1,2,1790000000,view\nu2,i2,,,\n"
    file = written(tmp_path, "a.csv", text)
    found = []
    for form in ([], ["--json"]):
        topic = Topic(embedded, tmp_path / f"{len(form)}")
        code, said = published(topic, file, *form)
        assert code == 0, said
        assert "1 row has no time and gets the time of now." in said
        with consuming(topic.settings):
            topic.wait_stored()
        rows = stored(topic)
        assert {row[4] for row in rows if row[0] == "u1"} == {1_790_000_000_000}
        found.append(sorted(row[:4] for row in rows))
    assert found == [[("u1", "i1", 2.0, "view"), ("u2", "i2", 1.0, "interaction")]] * 2


def test_nothing_is_sent_if_a_row_would_be_rejected_unless_it_is_left_out(
    embedded: str, tmp_path: Path
) -> None:
    topic = Topic(embedded, tmp_path)
    lines = ["u1,i1,1e13,1790000000", "u1,,1,1790000000", "u2,i2,1,1790000000", "u3,i3,1,99"]
    file = written(tmp_path, "a.csv", "\n".join(["user_id,item_id,interaction,timestamp", *lines]))
    code, said = published(topic, file)
    assert code == 1
    for reason in ("3 of 4 rows", "line 2: interaction", "line 3: item_id is missing", "line 5: "):
        assert reason in said
    assert "Traceback" not in said
    assert topic.length() == 0
    code, said = published(topic, file, "--skip-invalid")
    assert code == 0
    assert "Left out: 3 of 4 rows" in said
    assert "Published 1 events" in said
    with consuming(topic.settings):
        topic.wait_stored()
    assert [row[:2] for row in stored(topic)] == [("u2", "i2")]
    assert not list(read_topic(topic.settings, topic.settings.dead_letter_topic))
