"""The consumer's loop on real brokers."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from consumer.edge.store import EdgeStore, Watermark
from consumer.edge.traces import digest
from consumer.event import arrow as bulk
from consumer.event.json import FORGET, Event
from consumer.event.rules import ONLY_HERE
from consumer.ingest import reinject as reinjecting
from consumer.ingest.batch import Batch
from consumer.ingest.letters import Letters
from consumer.ingest.reinject import Done, reinject
from consumer.kafka.client import Headers, StreamError
from consumer.kafka.publisher import Publisher
from consumer.kafka.topics import group_offsets, read_topic
from tests.consumer.test_order import edges_of
from tests.consumer.test_rows import message
from tests.graphs import stored
from tests.ingesting import Topic, consuming, likes
from tests.services import wait_for
from trainer.graph.interactions import InteractionGraph


@pytest.fixture
def topic(kafka: str, tmp_path: Path) -> Iterator[Topic]:
    made = Topic(kafka, tmp_path)
    yield made
    made.publisher.close()


def test_a_store_that_cannot_be_written_for_a_while_gets_everything_once(
    topic: Topic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a"]))
        topic.wait_stored()
        log, away = tmp_path / "edges" / "_delta_log", tmp_path / "away"
        log.rename(away)
        log.write_text("in the way, so that even root cannot write")
        topic.publish(*likes("u", ["i0"]))
        wait_for("a write that fails", lambda: "A batch cannot be stored" in caplog.text)
        for n in range(1, 50):
            topic.publish(*likes("u", [f"i{n}"]))
        log.unlink()
        away.rename(log)
        topic.wait_stored()
    assert Counter(topic.rows()["item_id"].to_pylist()) == Counter(
        ["a", *(f"i{n}" for n in range(50))]
    )


def test_two_consumers_that_both_think_they_have_a_partition_store_it_once(
    topic: Topic, tmp_path: Path
) -> None:
    # Groups of their own, so that both are assigned everything and fence each other all the time.
    with consuming(topic.settings), consuming(topic.into(tmp_path / "edges")):
        for n in range(30):
            topic.publish(*likes("u", [f"i{n}"]), partition=n % 4)
        topic.wait_stored()
    assert sorted(topic.rows()["item_id"].to_pylist()) == sorted(f"i{n}" for n in range(30))


def test_kafka_is_told_how_far_the_store_is_and_the_lag_is_what_is_not_polled(
    topic: Topic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with consuming(topic.settings):
        topic.publish(*likes("u", ["a", "b"]), partition=1)
        topic.publish(*likes("u", ["c"]), partition=2)
        group = topic.settings.kafka_group
        wait_for(
            "the committed offsets",
            lambda: group_offsets(topic.settings, group) == {1: 2, 2: 1},
        )
        wait_for("a line", lambda: "rows=3 lag=0" in caplog.text)


def test_a_forgotten_user_is_out_of_the_store_and_its_files_and_stays_out_after_a_replay(
    topic: Topic, tmp_path: Path
) -> None:
    with consuming(topic.settings):
        topic.publish(*likes("gone", ["a", "b"]), *likes("here", ["a"]))
        topic.publish(*likes("gone", ["c"]), partition=3)
        store = topic.wait_stored()
        graph = InteractionGraph()
        graph.extend(stored(store))
        seen = Watermark(store.id).after(stored(store))
        forget = Event("gone", "", 1.0, 1_700_000_000_000, FORGET)
        topic.publish(*likes("gone", ["d"]), forget, *likes("gone", ["e"]))
        topic.publish(forget, partition=3, headers=[ONLY_HERE])
        topic.wait_stored()
    rows = topic.rows()
    alive = [row for row in rows.to_pylist() if row["type"] != FORGET]
    assert [(row["user_id"], row["item_id"]) for row in alive] == [("here", "a"), ("gone", "e")]
    assert {row["user_id"] for row in rows.to_pylist() if row["type"] == FORGET} == {digest("gone")}
    before = {0: 4, 3: 1}
    assert store.files_with("gone", before) == []
    assert store.files_with("gone", {0: 6}) != []  # its new life is found, so one can look
    log = b"".join(file.read_bytes() for file in (tmp_path / "edges" / "_delta_log").iterdir())
    assert b"gone" not in log

    graph.extend(stored(store, seen))
    assert sorted(graph.user_ids.values.to_pylist()) == ["", "gone", "here"]
    assert len(graph) == 2

    other = topic.into(tmp_path / "replayed")
    with consuming(other):
        again = topic.wait_stored(other)
    assert [
        (row["user_id"], row["item_id"])
        for row in stored(again).to_pylist()
        if row["type"] != FORGET
    ] == [("here", "a"), ("gone", "e")]


def test_a_forget_that_a_client_of_another_partitioner_sends_erases_the_user_everywhere(
    topic: Topic,
) -> None:
    forget = Event("gone", "", 1.0, 1_700_000_000_000, FORGET)
    with consuming(topic.settings):
        topic.publish(*likes("gone", ["a", "b"]), *likes("here", ["a"]), partition=2)
        topic.publish(*likes("gone", ["c"]), partition=3)
        topic.wait_stored()
        topic.publish(forget, partition=1)  # where the other rule puts this user
        store = topic.wait_stored()
        assert edges_of(store) == {("here", "a")}
        assert store.files_with("gone", {2: 3, 3: 1}) == []
        topic.publish(*likes("gone", ["d"]), partition=2)  # the user comes again
        topic.wait_stored()
    assert edges_of(store) == {("here", "a"), ("gone", "d")}


def test_to_forget_again_and_to_forget_nobody_changes_nothing(topic: Topic, tmp_path: Path) -> None:
    forget = Event("gone", "", 1.0, 1_700_000_000_000, FORGET)
    with consuming(topic.settings):
        topic.publish(forget, *likes("here", ["a"]))
        topic.wait_stored()
        topic.publish(*likes("gone", ["a"]))
        topic.wait_stored()
        topic.publish(forget, forget)
        topic.wait_stored()
        topic.publish(forget)
        topic.wait_stored()
    kinds = Counter(row["type"] for row in topic.rows().to_pylist())
    assert kinds["view"] == 1
    assert kinds[FORGET] <= 2


junk = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b'{"user_id":"u","item_id":"i","interaction":NaN}',
            b'{"user_id":"u","item_id":"i","interaction":1e999}',
            b'{"user_id":"u","item_id":"' + b"x" * 10_000 + b'"}',
            b'{"user_id":"\xff","item_id":"i"}',
            b'{"user_id":"u","item_id":"i","more":' + b"[" * 20_000,
            b"[" * 20_000,
            b'{"user_id":"u","item_id":"i","timestamp":4102444800000}',
            b'[{"user_id":"u","item_id":"i"},{"user_id":"u"}]',
            b'{"user_id":"u","item_id":"i"}{"user_id":"u","item_id":"i"}',
        ]
    ),
)
columns = st.sampled_from(
    [
        {"user_id": ["u"]},
        {"user_id": [1.5], "item_id": ["i"]},
        {"user_id": [None], "item_id": ["i"]},
        {"user_id": ["u"], "item_id": ["i"], "interaction": [math.inf]},
        {"user_id": ["u"], "item_id": ["i"], "timestamp": ["today"]},
        {"user_id": [["u"]], "item_id": ["i"]},
    ]
).map(lambda table: (bulk.encode(pa.table(table)), bulk.HEADERS))
broken = st.binary(max_size=60).map(lambda value: (value, bulk.HEADERS))
malformed: st.SearchStrategy[tuple[bytes, Headers]] = st.one_of(
    junk.map(lambda value: (value, [])), columns, broken
)


@pytest.mark.parametrize("hundreds", [10, pytest.param(100, marks=pytest.mark.long)])
def test_every_malformed_message_becomes_one_dead_letter_and_every_good_one_arrives(
    topic: Topic, tmp_path: Path, hundreds: int
) -> None:
    made: list[tuple[bytes, Headers]] = []

    @settings(max_examples=hundreds, deadline=None, phases=[Phase.generate], database=None)
    @given(st.lists(malformed, min_size=100, max_size=100))
    def make(messages: list[tuple[bytes, Headers]]) -> None:
        made.extend(messages)

    make()
    shuffled = random.Random(1)
    sent = {}
    for n, (value, headers) in enumerate(made):
        topic.send(value, [*headers, ("n", str(n).encode())], str(n).encode(), n % 4)
        sent[str(n).encode()] = value
        if shuffled.random() < 0.2:
            topic.send(b'{"user_id":"good","item_id":"i%d"}' % n, partition=n % 4)
    with consuming(topic.settings):
        topic.wait_stored()
    found = list(read_topic(topic.settings, topic.settings.dead_letter_topic))
    assert len(made) >= 100 * hundreds
    assert Counter(letter.key for letter in found) == Counter(sent.keys())
    assert all(letter.value == sent[letter.key or b""] for letter in found)
    assert all(dict(letter.headers)["n"] == letter.key for letter in found)
    assert all(dict(letter.headers)["error"] for letter in found)
    good = topic.rows()
    assert set(good["user_id"].to_pylist()) == {"good"}
    assert len(good) + len(found) == topic.length()


def test_mended_letters_are_put_back_once_each_and_the_others_stay(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.event.rules.ID_BYTES", 5)
    with consuming(topic.settings):
        for n in range(9):
            topic.send(b'{"user_id":"longer-%d","item_id":"i"}' % n, [("own", b"header")])
        topic.send(b"not json")
        table = pa.table({"user_id": ["u", ""], "item_id": ["i", "i"]})
        topic.send(bulk.encode(table), bulk.HEADERS)
        topic.wait_stored()
        monkeypatch.undo()  # the limit is mended
        assert len(list(Letters(topic.settings).letters())) == 11
        long = list(Letters(topic.settings).letters("longer than 5 bytes"))
        assert [letter.source for letter in long] == [
            f"{topic.settings.kafka_topic}/0/{n}" for n in range(9)
        ]
        assert long[0].headers == [("own", b"header")]
        assert list(reinject(topic.settings, "longer than 5 bytes", limit=4))[-1] == Done(4)
        assert list(reinject(topic.settings, "longer than 5 bytes"))[-1] == Done(5)
        assert list(reinject(topic.settings, "longer than 5 bytes"))[-1] == Done(0)
        topic.wait_stored()
    stored = Counter(topic.rows()["user_id"].to_pylist())
    assert stored == Counter({f"longer-{n}": 1 for n in range(9)} | {"u": 1})
    left = [letter.reason for letter in Letters(topic.settings).letters()]
    assert len(left) == 2
    assert "row 1 of the message" in left[1]


def test_an_interrupted_re_injection_puts_each_letter_back_once(
    topic: Topic, embedded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if topic.settings.kafka_bootstrap_servers == embedded:
        pytest.skip("the embedded broker has no transactions")
    monkeypatch.setattr(reinjecting, "TOGETHER", 4)
    for _ in range(10):
        topic.send(b"not json")
    with consuming(topic.settings):
        topic.wait_stored()
    send, calls = Publisher.send, 0

    def failing(self: Publisher, *arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 13:  # in the midst of the second transaction
            raise StreamError("interrupted")
        return send(self, *arguments, **named)  # type: ignore[arg-type]  # passed on as given

    monkeypatch.setattr(Publisher, "send", failing)
    with pytest.raises(StreamError, match="interrupted"):
        list(reinject(topic.settings))
    monkeypatch.undo()
    assert topic.length() == 10 + 4
    list(reinject(topic.settings))
    assert topic.length() == 10 + 10
    assert list(Letters(topic.settings).letters()) == []


def test_old_rows_leave_the_store_but_what_was_taken_back_does_not_return(tmp_path: Path) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    batch = Batch()
    fields = [("view", "2020-01-01"), ("view", "2999-01-01"), ("remove", "2020-01-01")]
    lines = [
        b'{"user_id":"u","item_id":"%s","type":"%s","timestamp":"2020-01-01T00:00:00Z"}'
        % (b"i%d" % n, kind.encode())
        for n, (kind, _) in enumerate(fields)
    ]
    lines.append(b'{"user_id":"u","item_id":"new"}')
    now = [message(line, n)._replace(timestamp=1_795_000_000_000) for n, line in enumerate(lines)]
    batch.take(now, None, 0)
    batch.write(store, store.newest())
    store.tidy(retention_days=30 * 365)
    assert len(stored(store)) == 4
    store.tidy(retention_days=30)
    assert stored(store)["item_id"].to_pylist() == ["i2", "new"]
    assert store.next_offset(3) == 4
