"""Who has rows in the store and is not held: known also after partitions have come and gone."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumer.edge.files import USERS, Files
from consumer.edge.news import News
from consumer.edge.schema import TABLE
from consumer.edge.store import StoreError
from consumer.event.json import FORGET
from consumer.event.rules import HERE
from consumer.ingest.decode import Position
from serving.edges.elsewhere import Seen
from serving.edges.steps import in_parts
from serving.edges.strangers import Strangers
from tests.holding import Process, Topic, hold


@pytest.fixture
def topic(tmp_path: Path) -> Topic:
    """With a user in each of the partitions 1 to 3."""
    made = Topic(tmp_path, 0, 0.0)
    for user, partition in (("y", 1), ("z", 2), ("w", 3)):
        made.put(user, "a", partition)
    return made


def holding(topic: Topic, *partitions: int) -> Process:
    """A process that has these partitions; all that was published is stored."""
    topic.store(99)
    process = Process(topic)
    process.assign(*partitions)
    return process


def between_commits(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer takes up the next event, a forget, and has not stored the offset yet."""
    with monkeypatch.context() as patch:
        patch.setattr(topic.rows, "append", lambda *_: None)
        topic.store(1)


def end_commit(topic: Topic) -> None:
    """The consumer stores the offset of a forget that is the first event of partition 0."""
    topic.rows.append(TABLE.empty_table(), {0: None}, {0: 1}, topic.rows.newest())


def test_strangers_are_all_that_were_added_and_not_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.edges.strangers.FEWEST", 3)
    made = Strangers()
    made.add([f"u{n}" for n in range(50)])
    made.discard(["u1", "u49", "nobody"])
    made.add(["u1"])
    users = [f"u{n}" for n in range(60)]
    assert made.among(users) == [user for user in users[:50] if user != "u49"]
    assert [user for user in users if user in made] == made.among(users)


def test_strangers_of_a_partition_alone_leave_with_it_and_those_of_several_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.edges.strangers.FEWEST", 3)
    made, of = Strangers(), dict[str, set[int]]()
    draw = random.Random(0)
    for _ in range(300):
        user, partition = f"u{draw.randrange(200)}", draw.randrange(4)
        made.add([user], partition)
        of.setdefault(user, set()).add(partition)
    made.add(["u0", "unknown"])
    of["unknown"] = of["u0"] = {0, 1}
    for partitions in ({0}, {1, 2}, {0, 1, 2, 3}):
        kept = made.without(partitions)
        expected = {user for user, own in of.items() if len(own) > 1 or not own <= partitions}
        assert set(kept.among([*of])) == expected
    assert set(made.among([*of])) == of.keys()


def test_strangers_tell_whether_they_may_have_rows_of_some_partitions() -> None:
    made = Strangers()
    assert not made.have_rows_of({0, 1, 2})
    made.add(["u"], 1)
    assert made.have_rows_of({0, 1})
    assert not made.have_rows_of({0, 2})
    made.add(["v", "w"], np.array([1, 2], np.int32))
    assert not made.have_rows_of({0})
    made.add(["w"], 1)
    assert made.have_rows_of({0})


def test_where_each_user_has_one_partition_it_is_taken_over_without_a_look_at_others_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(tmp_path, 5, 0.0)
    topic.publish(300)
    topic.store(300)
    process = Process(topic)
    process.assign(0)

    def users(*_: object) -> None:
        raise AssertionError("the users of other partitions are read")

    monkeypatch.setattr(Files, "users", users)
    process.assign(0, 2)
    process.assign(0, 1, 2)
    process.assign(0, 1, 2, 3)
    process.check(topic.whole())
    assert not process.edges.strangers([*topic.users()])
    process.assign(2)  # and after partitions were lost
    process.assign(1, 2)
    process.check(topic.whole())


def test_a_partition_that_comes_with_all_others_costs_no_second_reading_of_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(tmp_path, 5, 0.0)
    topic.publish(300)
    topic.store(300)
    process = Process(topic)
    process.assign(0)

    def again(*_: object) -> Iterator[pa.Table]:
        raise AssertionError("users are read again")

    monkeypatch.setattr(News, "read_before", again)
    process.assign(0, 1, 2, 3)
    process.check(topic.whole())


@pytest.mark.parametrize("gained", [(0, 1), (0, 2), (0, 1, 2, 3)])
def test_a_user_who_left_a_partition_that_stays_here_is_known_when_others_come(
    topic: Topic, gained: tuple[int, ...]
) -> None:
    topic.put("u", "a", 0)
    process = holding(topic, 0, 1)
    topic.put("u", "b", 1)  # which the store does not have yet
    process.read()
    process.assign(0)
    assert not process.edges.has("u")
    process.assign(*gained)
    topic.put("u", "c", 0)
    process.read()
    assert process.edges.is_missing("u") or "a" in process.edges.items("u")
    topic.store(99)
    process.grow()
    process.grow()
    assert list(process.edges.items("u")) == ["a", "b", "c"]


def test_a_user_who_was_forgotten_in_one_partition_that_is_lost_has_the_edges_of_the_others(
    topic: Topic,
) -> None:
    topic.put("u", "of 1", 1)
    topic.put("u", "of 0", 0)
    process = holding(topic, 0, 2)
    topic.put("u", HERE, 0, FORGET)  # which the consumer has not taken up yet
    process.read()
    assert not process.edges.has("u")
    process.assign(2)
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]


def test_a_user_who_was_forgotten_is_no_stranger_to_who_takes_the_partitions_over(
    topic: Topic,
) -> None:
    topic.put("gone", "a", 1)
    topic.put("gone", "b", 2)
    topic.put("u", "a", 2)
    topic.put("u", "b", 3)
    process = holding(topic, 0)
    topic.erase("gone", 1)
    process.grow()
    hold(process.edges, topic.rows, frozenset({0, 1, 2}))
    assert process.edges.unknown(["gone", "u", "nobody"]) == ["gone", "nobody"]
    hold(process.edges, topic.rows, frozenset({0, 1, 2, 3}))
    assert process.edges.has("u")


def test_a_user_who_was_forgotten_after_leaving_is_no_stranger_to_who_takes_the_partition_over(
    topic: Topic,
) -> None:
    topic.put("u", "a", 0)
    process = holding(topic, 0, 1)
    topic.put("u", "b", 1)
    process.read()
    process.assign(0)
    topic.put("u", "", 1, FORGET)
    topic.store(99)
    process.grow()
    process.assign(0, 1)
    assert process.edges.unknown(["u", "y"]) == ["u"]


def test_a_user_whose_rows_are_too_old_is_no_stranger_to_who_takes_the_partitions_over(
    topic: Topic,
) -> None:
    topic.put("u", "a", 1)
    topic.put("u", "b", 2)
    process = holding(topic, 0)
    assert topic.rows.tidy(retention_days=1.0) == 5  # the events are of 1970
    process.assign(0, 1, 2)
    assert process.edges.unknown(["u"]) == ["u"]


def test_a_forget_of_each_partition_counts_also_where_one_partition_comes_between(
    topic: Topic,
) -> None:
    topic.put("u", "a", 1)
    topic.put("u", "b", 0)
    process = holding(topic, 0)
    topic.put("u", HERE, 0, FORGET)
    topic.put("u", HERE, 1, FORGET)
    process.read()
    process.assign(0, 1)
    process.read()
    topic.store(1)
    process.grow()
    assert not process.edges.has("u")  # the store still has the row of 1


def test_a_user_whose_newest_rows_were_erased_is_held_with_the_others_once_all_partitions_are(
    topic: Topic,
) -> None:
    topic.put("u", "a", 0)
    topic.put("u", "b", 1)
    process = holding(topic, 0)
    topic.put("u", HERE, 1, FORGET)
    topic.store(1)
    process.grow()
    process.assign(0, 1, 2, 3)
    assert list(process.edges.items("u")) == ["a"]


def test_a_user_whose_forget_is_not_stored_when_its_partition_is_lost_is_no_stranger_after_it(
    topic: Topic,
) -> None:
    topic.put("u", "a", 0)
    process = holding(topic, 0, 1)
    topic.put("u", "", 1, FORGET)
    process.read()
    process.assign(0)
    topic.store(99)
    process.grow()
    assert process.edges.unknown(["u"]) == ["u"]


@pytest.mark.parametrize("item", ["", HERE])
def test_a_user_whose_forget_is_not_stored_when_a_partition_comes_is_no_stranger_after_it(
    topic: Topic, item: str
) -> None:
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    topic.put("u", "a", 0)
    process = holding(topic, 0)
    topic.put("u", item, 0, FORGET)
    process.read()
    process.assign(0, 1)
    topic.store(99)
    process.grow()
    assert process.edges.unknown(["u", "m"]) == ["u"]


def test_a_user_of_others_who_is_forgotten_in_a_partition_that_is_held_here_stays_a_stranger(
    topic: Topic,
) -> None:
    topic.put("u", "old", 2)
    for partition in (1, 2, 3):
        topic.put("u", HERE, partition, FORGET)
    topic.put("u", "x", 2)
    topic.put("u", "y", 3)  # so that a gain reads the users of all rows
    process = holding(topic, 0)
    topic.put("u", HERE, 0, FORGET)
    process.read()
    process.assign(0, 1)
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]
    topic.store(99)
    process.grow()
    topic.put("u", "c", 0)
    process.read()
    assert process.edges.is_missing("u")
    topic.store(99)
    process.grow()
    assert list(process.edges.items("u")) == ["x", "y", "c"]


def test_a_user_who_came_again_after_a_stored_forget_is_a_stranger_to_who_loses_its_partition(
    topic: Topic,
) -> None:
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    process = holding(topic, 0, 1)
    topic.put("u", "", 0, FORGET)
    topic.put("u", "y", 3)
    topic.put("u", "x", 1)
    forget, _, last = topic.events[-3:]
    for partition, offset, event in (last, forget):
        process.edges.apply(event, partition, Position(offset, 0))
    topic.store(2)  # all but the last
    process.assign(1, 2)
    process.read()
    assert process.edges.is_missing("u")
    topic.store(1)
    process.grow()
    assert list(process.edges.items("u")) == ["y", "x"]


def test_a_user_who_was_forgotten_everywhere_is_no_stranger_though_one_partitions_forget_follows(
    topic: Topic,
) -> None:
    topic.put("u", "a", 0)
    topic.put("u", "b", 1)
    process = holding(topic, 0, 1)
    topic.put("u", "c", 0)
    topic.put("u", "", 1, FORGET)
    topic.put("u", HERE, 1, FORGET)
    process.read()
    process.assign(0)
    topic.store(99)
    process.grow()
    assert process.edges.unknown(["u"]) == ["u"]


@pytest.mark.parametrize("newest", [1, 2])
def test_a_forgotten_user_with_rows_of_the_partition_that_comes_is_no_stranger_after_it(
    topic: Topic, newest: int
) -> None:
    for partition in (3 - newest, newest):
        topic.put("u", "a", partition)
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)  # which is not stored when the partition comes
    process.read()
    process.assign(0, 1)
    topic.store(99)
    process.grow()
    assert process.edges.unknown(["u"]) == ["u"]


def test_a_user_whom_a_growth_reads_that_began_before_the_forget_does_not_come_back(
    topic: Topic,
) -> None:
    topic.put("u", "a", 0)
    process = holding(topic, 0, 1)
    topic.put("v", "b", 0)
    topic.store(1)
    growth = process.edges.begin_growth()
    growth.run(topic.rows)
    topic.put("u", "", 1, FORGET)
    process.read()
    process.edges.finish_growth(growth)
    process.assign(0)
    assert not process.edges.has("u")


@pytest.mark.parametrize("left", [0, 1])
def test_a_user_who_was_forgotten_before_the_partition_came_does_not_come_back(
    topic: Topic, left: int
) -> None:
    for partition in (2, 1):
        topic.put("u", "a", partition)
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)  # which the store does not have meanwhile
    process.read()
    process.assign(*((0, 1) if left else (0, 1, 2, 3)))
    process.assign(1)
    assert not process.edges.has("u")


@pytest.mark.parametrize("mine", [(0, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("user", ["u", "new"])
def test_a_user_who_came_again_keeps_what_was_read_before_the_store_failed(
    topic: Topic, mine: tuple[int, ...], user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("u", "old", 0)
    process = holding(topic, *mine)
    topic.put(user, "", 0, FORGET)
    topic.put(user, "new", 1)
    for n in range(40):
        topic.put("v", f"i{n}", 1)
    topic.put("w", "last", 0)
    process.read()
    topic.store(99)
    monkeypatch.setattr("consumer.edge.windows.WINDOW_ROWS", 8)
    read = Files.read

    def failing(*given: Any) -> pa.Table:
        found = read(*given)
        if "last" in found["item_id"].to_pylist():
            raise StoreError("the place is away")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Files, "read", failing)
        with pytest.raises(StoreError):
            hold(process.edges, topic.rows, process.edges.held)
    assert process.edges.watermark.offsets(0)[1] > 1  # the user's new row was read
    process.grow()
    process.grow()
    assert list(process.edges.items(user)) == ["new"]


@pytest.mark.parametrize("mine", [(0, 1), (0, 1, 2, 3)])
def test_a_user_who_comes_while_a_forget_that_takes_nothing_is_stored_has_the_new_edges(
    topic: Topic, mine: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holding(topic, *mine)
    topic.put("u", "", 0, FORGET)
    process.read()
    between_commits(topic, monkeypatch)
    topic.put("u", "new", 1)
    topic.store(1)
    process.grow()
    assert process.edges.unsettled == {"u"}  # so that the store is read again soon
    end_commit(topic)
    process.grow()
    assert list(process.edges.items("u")) == ["new"]
    assert "u" in process.edges.take_settled()
    assert not process.edges.unsettled


def test_a_user_of_others_who_comes_while_a_forget_that_takes_nothing_is_stored_stays_a_stranger(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)
    process.read()
    between_commits(topic, monkeypatch)
    topic.put("u", "x", 2)
    topic.store(1)
    process.assign(0, 1)
    end_commit(topic)
    process.grow()
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]


@pytest.mark.parametrize(("left", "own"), [(0, []), (1, ["new"])])
def test_a_partition_that_is_lost_while_a_forget_that_takes_nothing_is_stored_loses_no_user(
    topic: Topic, left: int, own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holding(topic, 0, 1)
    topic.put("u", "", 0, FORGET)
    process.read()
    between_commits(topic, monkeypatch)
    topic.put("u", "new", 1)
    topic.store(1)
    process.grow()
    hold(process.edges, topic.rows, frozenset({left}))
    end_commit(topic)
    process.grow()
    assert list(process.edges.items("u")) == own
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]


@pytest.mark.parametrize("gained", [(0, 1), (0, 1, 2, 3)])
def test_a_user_who_came_again_before_the_offset_of_the_forget_is_stored_has_the_new_edges(
    topic: Topic, gained: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("u", "old", 0)
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)
    process.read()
    between_commits(topic, monkeypatch)
    topic.put("u", "new", 1)
    topic.store(1)
    process.assign(*gained)
    process.grow()
    assert list(process.edges.items("u")) == ["new"]


def test_a_forget_that_is_read_of_kafka_after_two_growths_have_had_it_takes_out_nothing_new(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("u", "old", 0)
    process = holding(topic, 0, 1)
    topic.put("u", "", 0, FORGET)
    between_commits(topic, monkeypatch)
    process.grow()
    topic.put("z", "a", 1)
    topic.store(1)
    process.grow()
    process.read()
    topic.put("u", "new", 1)
    topic.store(1)
    process.grow()
    topic.rows.append(TABLE.empty_table(), {0: 1}, {0: 2}, topic.rows.newest())  # the second one
    process.grow()
    assert list(process.edges.items("u")) == ["new"]


def test_a_second_forget_that_is_not_stored_counts_beside_the_notice_of_the_first(
    topic: Topic,
) -> None:
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    topic.put("u", "old", 0)
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)
    topic.put("u", "new", 0)
    topic.store(2)
    process.grow()
    topic.put("u", "", 0, FORGET)
    process.read()
    process.assign(0, 1)
    topic.store(99)
    process.grow()
    assert process.edges.unknown(["u", "m"]) == ["u"]


def test_of_two_forgets_the_one_that_is_not_stored_counts_though_the_later_one_is(
    topic: Topic,
) -> None:
    topic.put("m", "a", 2)
    topic.put("m", "b", 3)  # so that a gain reads the users of all rows
    process = holding(topic, 0, 1)
    topic.put("u", "", 0, FORGET)
    topic.put("u", "a", 1)
    topic.put("u", "", 1, FORGET)
    process.read()
    topic.put("u", "b", 3)
    topic.events.append(topic.events.pop(-4))  # the consumer of 0 is behind
    topic.store(3)
    process.grow()
    process.assign(0, 1, 2)
    topic.store(1)
    process.grow()
    assert process.edges.unknown(["u", "m"]) == ["u"]


def test_a_forget_that_is_stored_takes_out_no_newer_edge_that_only_the_store_has_told(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("u", "older", 1)
    process = holding(topic, 0, 1)
    topic.put("u", "old", 0)
    process.read()
    topic.put("u", "", 0, FORGET)
    erase = topic.rows.erase
    with monkeypatch.context() as patch:  # the consumer of 0 has both, and is between two commits
        patch.setattr(topic.rows, "append", lambda *_: None)
        patch.setattr(topic.rows, "erase", lambda rows, _, log: erase(rows, {0: None}, log))
        topic.store(2)
    topic.put("u", "new", 1)
    topic.store(1)
    process.grow()
    process.read()
    topic.rows.append(TABLE.empty_table(), {0: None}, {0: 2}, topic.rows.newest())
    process.grow()
    assert list(process.edges.items("u")) == ["new"]


def test_a_user_who_was_forgotten_in_a_topic_that_was_made_anew_has_the_edges_of_the_new_one(
    tmp_path: Path,
) -> None:
    topic = Topic(tmp_path, 0, 0.0)
    topic.rows.begin_log("first", None)
    topic.put("u", "old", 0)
    process = holding(topic, 0, 1)
    topic.put("u", "", 0, FORGET)
    process.read()
    topic.store(1)
    log = topic.rows.begin_log("second", None)
    topic.events, topic.stored, topic.ends = [], 0, [0, 0]
    topic.put("u", "new", 1)
    topic.store(1)
    hold(process.edges, topic.rows, frozenset({0, 1}))
    process.edges.begin(log.number, 1, 1)
    process.grow()
    assert list(process.edges.items("u")) == ["new"]


@pytest.mark.parametrize("item", ["", HERE])
def test_a_forget_that_the_consumer_never_read_as_the_topic_was_made_anew_takes_nothing_out(
    topic: Topic, item: str
) -> None:
    topic.rows.begin_log("first", None)
    topic.put("u", "a", 2)
    process = holding(topic, 2)
    topic.put("u", item, 2, FORGET)
    process.read()
    log = topic.rows.begin_log("second", None)
    hold(process.edges, topic.rows, frozenset({2}))
    process.edges.begin(log.number, 2, 0)
    assert process.edges.has_news(topic.rows), "the store was read to the end, but not for the user"
    process.grow()
    assert not process.edges.has_news(topic.rows)
    assert list(process.edges.items("u")) == ["a"]
    assert "u" in process.edges.take_settled()


def test_a_forgotten_user_who_comes_elsewhere_and_then_here_is_read_of_the_store(
    topic: Topic,
) -> None:
    topic.put("u", "old", 0)
    process = holding(topic, 0)
    topic.put("u", "", 0, FORGET)
    process.read()
    topic.put("u", "elsewhere", 1)
    topic.store(99)
    before = process.edges.watermark
    process.edges.see(Seen({"u": 1}, topic.rows.news(before).end(before)))
    topic.put("u", "here", 0)
    process.read()
    assert process.edges.is_missing("u")
    topic.store(99)
    process.grow()
    assert list(process.edges.items("u")) == ["elsewhere", "here"]


def test_a_user_who_was_read_again_and_left_with_a_lost_partition_is_a_stranger(
    topic: Topic,
) -> None:
    topic.put("u", "old", 2)
    topic.put("u", "b", 1)
    process = holding(topic, 1)
    topic.put("u", HERE, 1, FORGET)
    topic.put("u", "c", 1)
    process.read()
    process.assign(2)
    assert process.edges.unknown(["u", "nobody"]) == ["nobody"]
    topic.put("u", "d", 2)
    process.read()
    assert process.edges.is_missing("u")
    topic.store(1)
    process.grow()
    assert list(process.edges.items("u")) == ["old", "d"]


def test_one_forgotten_user_does_not_make_later_gains_read_the_users_of_all_rows(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.put("gone", "a", 2)
    topic.put("gone", "b", 3)
    topic.store(99)
    for partition in (2, 3):
        topic.put("gone", HERE, partition, FORGET)
    process = holding(topic, 0)

    def users(*_: object) -> None:
        raise AssertionError("the users of other partitions are read")

    monkeypatch.setattr(Files, "users", users)
    process.assign(0, 1)
    process.check(topic.whole())


def test_nobody_is_a_stranger_to_who_holds_all_partitions(topic: Topic) -> None:
    topic.put("u", "a", 0)
    topic.put("u", "b", 1)
    process = holding(topic, 0)
    assert process.edges.strangers(["u"]) == ["u"]
    process.assign(0, 1, 2, 3)
    assert process.edges.strangers(["u", "y", "z"]) == []
    topic.put("u", "", 1, FORGET)
    topic.store(1)
    process.grow()
    assert process.edges.unknown(["u"]) == ["u"]


def test_rows_without_a_partition_count_as_rows_of_several() -> None:
    rows = pa.table({"user_id": ["a", "b"], "kafka_partition": [1, None]}, USERS)
    made = Strangers()
    for users, partitions in in_parts(rows):
        made.add(users, partitions)
    assert made.without({1}).among(["a", "b"]) == ["b"]
