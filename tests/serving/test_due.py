"""Users whose lists are due."""

import time

import pytest

from serving.loop.due import FIRST_WAIT, MOST_ARRIVALS, MOST_TRIES, DueUsers


def due_users(*events: tuple[int, int, str]) -> DueUsers:
    """Of events (partition, offset, user), all read."""
    made = DueUsers()
    for partition, offset, user in events:
        made.add(user, partition, offset, 0)
        made.have_read(partition, offset + 1)
    return made


def test_who_is_first_due_is_taken_first_and_once() -> None:
    due = due_users((0, 0, "b"), (0, 1, "a"), (0, 2, "b"), (0, 3, "c"))
    assert due.take(2) == ["b", "a"]
    assert due.answered() == 2
    assert due.take(9) == ["c"]
    assert due.answered() == 1
    assert due.take(9) == []


def test_an_event_that_comes_while_the_list_is_made_makes_the_user_due_again() -> None:
    due = due_users((0, 0, "a"), (0, 1, "b"))
    due.take(1)
    due.add("a", 0, 2, 0)
    due.have_read(0, 3)
    due.answered()
    assert due.offsets() == {0: 1}
    assert due.take(9) == ["b", "a"]


def test_a_partition_is_answered_up_to_the_first_event_that_is_not() -> None:
    due = due_users((1, 3, "c"), (0, 6, "b"), (0, 7, "a"))
    due.take(2)
    assert due.offsets() == {0: 6, 1: 3}  # their lists are only being made
    due.answered()
    assert due.offsets() == {0: 7, 1: 4}
    due.committed({0: 7, 1: 4})
    assert due.offsets() == {0: 7}
    due.take(1)
    due.answered()
    assert due.offsets() == {0: 8}


def test_who_is_given_back_is_due_before_all_others_from_the_first_event_on() -> None:
    due = due_users((0, 1, "a"), (0, 2, "b"), (0, 3, "c"))
    due.take(2)
    due.add("b", 0, 4, 0)
    due.have_read(0, 5)
    due.give_back()
    assert due.offsets() == {0: 1}
    assert due.take(1) == ["a"]
    due.answered()
    assert due.offsets() == {0: 2}
    assert due.take(9) == ["b", "c"]


def test_nothing_of_a_lost_partition_is_told() -> None:
    due = due_users((0, 5, "a"), (0, 6, "b"))
    due.add_without_event("b", 0)  # who has an event
    due.add_without_event("c", 0)
    due.take(1)
    assert due.clear() == ["c"]
    assert not due.offsets()
    assert not due.take(1)
    assert due.answered() == 0


def test_delays_are_of_each_event_since_the_start_and_told_once() -> None:
    due = DueUsers()
    now = int(time.time() * 1000) + 1
    due.add("a", 0, 0, now - 3_600_000)  # before the start
    for offset in range(1, MOST_ARRIVALS + 9):
        due.add("a", 0, offset, now + 3_600_000)
    due.take(1)
    due.answered()
    delays = due.take_delays()
    assert len(delays) == MOST_ARRIVALS - 1
    assert all(-3_601 < delay < 0 for delay in delays)
    assert not due.take_delays()


def test_after_a_failure_each_is_tried_alone_and_only_the_culprit_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due = due_users((0, 1, "a"), (0, 2, "bad"), (0, 3, "c"))
    made, now = [], 100.0
    monkeypatch.setattr("serving.loop.due.time.monotonic", lambda: now)
    for _ in range(10):
        due.wake()
        taken = due.take(9)
        if "bad" in taken:
            due.failed()
        else:
            made += taken
            due.answered()
    assert made == ["a", "c"]
    assert due.offsets() == {0: 2}  # another process would go on at the event of the culprit
    due.add("bad", 0, 4, 0)
    due.have_read(0, 5)
    now = 100.0 + 0.9 * FIRST_WAIT
    due.wake()
    assert due.take(9) == []
    now = 100.0 + 1.1 * FIRST_WAIT
    due.wake()
    assert due.take(9) == ["bad"]
    due.answered()
    assert due.offsets() == {0: 5}


def test_who_fails_again_and_again_is_left_at_last() -> None:
    due = due_users((0, 1, "bad"))
    for _ in range(MOST_TRIES):
        assert due.take(9) == ["bad"]
        due.failed()
        for aside in due._aside.values():
            aside.until = 0.0
        due.wake()
    assert due.take(9) == []
    assert due.offsets() == {0: 2}
    due.add("bad", 0, 2, 0)
    due.have_read(0, 3)
    assert due.take(9) == ["bad"]


def test_an_event_that_comes_while_a_list_without_event_is_made_is_not_committed_unanswered() -> (
    None
):
    due = due_users((0, 1, "other"))
    due.take(1)
    due.answered()
    due.add_without_event("a", 0)
    due.take(1)
    due.add("a", 1, 7, 0)
    due.have_read(1, 8)
    due.give_back()  # Redis is away
    assert due.offsets() == {0: 2, 1: 7}
    assert due.take(9) == ["a"]
    due.answered()
    assert due.offsets() == {0: 2, 1: 8}
