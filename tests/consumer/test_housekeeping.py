"""The tidying of the edge store goes on, whatever went wrong, and also where nothing is written."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.edge import tidy
from consumer.edge.store import Conflict, EdgeStore, StoreError
from consumer.edge.table import Table
from consumer.ingest.housekeeping import COMMITS, Housekeeping
from consumer.settings import ConsumerSettings
from tests.graphs import append, store, stored
from tests.services import PATIENCE, wait_for
from tests.threads import threads


def test_an_unexpected_error_is_one_line_and_a_quiet_store_is_tidied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = ConsumerSettings(edge_store=str(tmp_path / "edges"), retention_days=1e-9)
    EdgeStore.begin(settings.edge_store, settings.kafka_topic)
    tidied, real = [], EdgeStore.tidy

    def tidy(store: EdgeStore, *arguments: float | None) -> object:
        tidied.append(arguments)
        if len(tidied) == 1:
            raise TypeError("nobody foresaw it")
        return real(store, *arguments)

    monkeypatch.setattr(EdgeStore, "tidy", tidy)
    housekeeping = Housekeeping(settings, logging.getLogger("test"))

    def again() -> bool:
        housekeeping.look()
        return "The edge store is tidied again" in caplog.text

    wait_for("the next try", again)
    housekeeping.close()
    assert len([each for each in caplog.messages if "nobody foresaw it" in each]) == 1


def test_consumers_that_merge_the_same_files_at_once_leave_each_row_once(tmp_path: Path) -> None:
    made = store(tmp_path, [("u", "a")])
    for number in range(1, 4):
        append(made, [("u", f"i{number}")], number)
    handles = [Table(made.uri) for _ in range(2)]  # both have read the same version
    tidy.tidy(handles[0], None)
    with pytest.raises(Conflict):
        tidy.tidy(handles[1], None)
    assert made.count() == 4
    assert sorted(stored(made)["item_id"].to_pylist()) == ["a", "i1", "i2", "i3"]


class Tidied:
    """Counts what is tidied; may wait, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.times = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

        def tidy(store: EdgeStore, days: float | None) -> int:
            self.times += 1
            assert self.may_go_on.wait(PATIENCE)
            if failure:
                raise failure
            return 0

        monkeypatch.setattr(EdgeStore, "tidy", tidy)


@pytest.fixture
def settings(tmp_path: Path) -> ConsumerSettings:
    made = ConsumerSettings(edge_store=str(tmp_path / "edges"))
    EdgeStore.begin(made.edge_store, made.kafka_topic)
    return made


@pytest.fixture
def housekeeping(settings: ConsumerSettings) -> Iterator[Housekeeping]:
    made = Housekeeping(settings, logging.getLogger("test"))
    yield made
    made.close()


def test_the_store_is_tidied_after_so_many_commits_and_never_twice_at_once(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = Tidied(monkeypatch)
    tidied.may_go_on.clear()
    for _ in range(COMMITS - 1):
        housekeeping.committed()
        housekeeping.look()
    assert tidied.times == 0
    for _ in range(2 * COMMITS):
        housekeeping.committed()
        housekeeping.look()
    wait_for("the first", lambda: tidied.times == 1)
    tidied.may_go_on.set()

    def second() -> bool:
        housekeeping.look()
        return tidied.times == 2

    wait_for("the second, of the commits meanwhile", second)


def test_another_consumer_that_tidies_at_the_same_time_is_no_trouble(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tidied = Tidied(monkeypatch, Conflict("another one is at it"))
    for _ in range(2):
        before = tidied.times

        def again(before: int = before) -> bool:
            for _ in range(COMMITS):
                housekeeping.committed()
            housekeeping.look()
            return tidied.times > before

        wait_for("a try", again)
    assert caplog.messages == []


def test_a_store_that_cannot_be_tidied_is_left_alone_for_a_while_however_many_commits_come(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("process.outage.FIRST_SECONDS", 1_000.0)
    made = Housekeeping(housekeeping._settings, logging.getLogger("test"))
    tidied = Tidied(monkeypatch, StoreError("the disk is full"))
    for _ in range(COMMITS):
        made.committed()

    def told() -> bool:
        made.look()
        return "the disk is full" in caplog.text

    wait_for("the line", told)
    for _ in range(3 * COMMITS):
        made.committed()
        made.look()
    assert tidied.times == 1
    made.close()


def test_housekeeping_that_is_closed_ends_its_thread(
    settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threads("housekeeping")
    tidied = Tidied(monkeypatch)
    made = Housekeeping(settings, logging.getLogger("test"))
    for _ in range(COMMITS):
        made.committed()
    made.look()
    wait_for("the tidying", lambda: tidied.times == 1)
    own = threads("housekeeping") - before
    assert own
    made.close()
    wait_for("the end of the thread", lambda: not own & threads("housekeeping"))
