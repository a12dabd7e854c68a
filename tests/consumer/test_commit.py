"""Batches are written on a thread: stored once, given up when told, dropped if fenced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore, Fenced, Log, StoreError
from consumer.event.json import encode
from consumer.ingest.batch import Batch
from consumer.ingest.commit import Writer
from consumer.ingest.dead_letters import DeadLetters
from consumer.ingest.decode import Rejected
from consumer.ingest.letters import Forget
from consumer.kafka.client import Message, StreamError
from consumer.settings import ConsumerSettings
from tests.graphs import stored
from tests.ingesting import likes
from tests.services import log, wait_for
from tests.threads import threads

TOPIC = "t"


class Letters(DeadLetters):
    """Keeps what is put into it, unless it is away."""

    def __init__(self) -> None:
        super().__init__(ConsumerSettings(kafka_topic=TOPIC))
        self.away = False
        self.kept: list[Rejected | Forget] = []

    def put(self, noted: list[Rejected | Forget]) -> None:
        if self.away:
            raise StreamError("Kafka is away")
        self.kept += noted
        noted.clear()


@pytest.fixture
def store(tmp_path: Path) -> EdgeStore:
    made = EdgeStore.begin(str(tmp_path / "edges"), TOPIC)
    made.begin_log("an id", None)
    return made


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def writer(store: EdgeStore, letters: Letters) -> Iterator[Writer]:
    made = Writer(EdgeStore(store.uri, TOPIC), letters, log)
    yield made
    made.close()


def batch(*items: str, first: int = 0, also: bytes | None = None) -> Batch:
    """One event for each item, from offset `first` on, and behind them a message with any value."""
    values = [encode(event) for event in likes("u", items)] + ([also] if also else [])
    messages = [
        Message(TOPIC, 0, first + n, 1_700_000_000_000, b"u", value, [])
        for n, value in enumerate(values)
    ]
    made = Batch()
    made.take(messages, first or None, time.time_ns() // 1000)
    return made


def items(store: EdgeStore) -> list[str]:
    return [str(item) for item in stored(store)["item_id"].to_pylist()]


def written(writer: Writer) -> Batch | None:
    """The batch once it is stored."""
    found: list[Batch] = []

    def ended() -> bool:
        found.extend(filter(None, [writer.wait_stored(0.1)]))
        return not writer.busy

    wait_for("the end of the write", ended)
    return found[0] if found else None


def test_a_batch_is_told_once_when_it_is_stored(store: EdgeStore, writer: Writer) -> None:
    assert writer.wait_stored() is None
    given = batch("a", "b")
    writer.begin(given, store.newest())
    assert writer.busy
    assert written(writer) is given
    assert (writer.wait_stored(), writer.busy, writer.trouble) == (None, False, "")
    assert items(store) == ["a", "b"]
    assert writer.commit_ms > 0


def test_a_letter_that_is_acknowledged_is_not_sent_again_while_the_store_is_away(
    store: EdgeStore, writer: Writer, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, real = [], EdgeStore.append

    def append(*arguments: object) -> object:
        tries.append(arguments)
        if len(tries) < 3:
            raise StoreError("the store is away")
        return real(*arguments)  # type: ignore[arg-type]  # passed on as given

    monkeypatch.setattr(EdgeStore, "append", append)
    writer.begin(batch("a", also=b"no event"), store.newest())
    wait_for("the trouble", lambda: "the store is away" in writer.trouble)
    assert written(writer) is not None
    assert items(store) == ["a"]
    assert len(letters.kept) == 1
    assert writer.trouble == ""


def test_nothing_is_stored_before_the_letters_are_and_a_batch_that_is_given_up_stores_nothing(
    store: EdgeStore, writer: Writer, letters: Letters
) -> None:
    letters.away = True
    writer.begin(batch("a", also=b"no event"), store.newest())
    wait_for("the trouble", lambda: "Kafka is away" in writer.trouble)
    assert writer.abandon() is None
    assert not writer.busy
    assert items(store) == []
    letters.away = False
    writer.begin(batch("b"), store.newest())  # the next one is not given up
    assert written(writer) is not None
    assert items(store) == ["b"]


def test_a_batch_that_is_dropped_is_no_trouble_any_more(writer: Writer, letters: Letters) -> None:
    letters.away = True
    writer.begin(batch("a", also=b"no event"), Log("", 0))
    wait_for("the trouble", lambda: "away" in writer.trouble)
    writer.abandon()
    assert writer.trouble == ""


def test_a_batch_that_was_stored_when_it_is_dropped_counts(
    store: EdgeStore, writer: Writer
) -> None:
    given = batch("a")
    writer.begin(given, store.newest())
    wait_for("the commit", lambda: store.next_offset(0) == 1)
    assert writer.abandon() is given
    assert writer.abandon() is None


def test_a_batch_of_which_another_consumer_has_stored_some_is_refused_whole(
    store: EdgeStore, writer: Writer
) -> None:
    batch("a").write(store, store.newest())
    writer.begin(batch("a", "b"), store.newest())
    with pytest.raises(Fenced, match="stored up to 1"):
        written(writer)
    assert not writer.busy
    writer.begin(batch("b", first=1), store.newest())
    assert written(writer) is not None
    assert items(store) == ["a", "b"]


def test_a_batch_of_another_table_is_dropped_without_an_error_where_it_is_given_up(
    store: EdgeStore, writer: Writer
) -> None:
    writer.begin(batch("a"), Log("another table", 0))
    assert writer.abandon() is None
    assert items(store) == []


def test_a_writer_that_is_closed_while_the_store_is_away_ends_its_thread(
    store: EdgeStore, letters: Letters
) -> None:
    before = threads("writer")
    writer = Writer(EdgeStore(store.uri, TOPIC), letters, log)
    letters.away = True
    writer.begin(batch("a"), store.newest())
    wait_for("the trouble", lambda: writer.trouble)
    own = threads("writer") - before
    assert own
    writer.close()
    wait_for("the end of the thread", lambda: not own & threads("writer"))
