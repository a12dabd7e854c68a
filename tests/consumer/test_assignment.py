"""What a loop is told of rebalances, which happen on another thread, in the midst of its steps."""

from consumer.kafka.assignment import Assignment

NOTHING: set[int] = set()


def changes(member: Assignment, ask: bool = True) -> tuple[set[int], set[int]]:
    lost, gained = member.changes(ask)
    return set(lost), set(gained)


def reading(*partitions: int) -> Assignment:
    """The owner has told where these partitions start."""
    made = Assignment()
    made.gain(partitions)
    made.changes(ask=True)
    assert all(made.claim(partition) for partition in partitions)
    return made


def test_a_gained_partition_is_told_until_it_is_read() -> None:
    member = Assignment()
    member.gain({0, 1})
    assert changes(member, ask=False) == (NOTHING, NOTHING)
    for _ in range(2):
        assert changes(member) == (NOTHING, {0, 1})
    assert member.claim(0)
    assert changes(member) == (NOTHING, {1})
    assert set(member.reading()) == {0}
    assert member.all() == {0, 1}
    assert member.waits


def test_a_loss_is_told_once_and_is_a_loss_of_all_that_the_owner_has() -> None:
    member = reading(0, 1)
    member.lose({0})
    assert not member.reading()
    assert member.has_lost
    assert changes(member) == ({0, 1}, {1})
    assert not member.has_lost
    assert changes(member) == (NOTHING, {1})


def test_a_start_that_was_found_before_a_rebalance_does_not_count_after_it() -> None:
    member = Assignment()
    member.gain({0})
    member.changes(ask=True)
    member.lose({0})
    member.gain({0})
    assert not member.claim(0)
    assert changes(member) == ({0}, {0})
    assert member.claim(0)


def test_a_partition_that_is_gained_without_having_been_lost_is_lost_to_the_owner_too() -> None:
    member = reading(0, 1)
    member.gain({1})
    assert changes(member) == ({0, 1}, {0, 1})


def test_an_owner_hears_nothing_of_a_partition_that_it_never_knew() -> None:
    member = Assignment()
    member.gain({0})
    member.lose({0})
    assert changes(member) == (NOTHING, NOTHING)
    assert not member.claim(0)


def test_a_start_that_could_not_be_taken_is_asked_for_again_but_not_after_a_loss() -> None:
    member = reading(0, 1)
    member.unclaim(0)
    assert changes(member) == (NOTHING, {0})
    member.lose({1})
    member.unclaim(1)
    assert changes(member) == ({0, 1}, {0})


def test_a_topic_that_was_created_anew_is_started_anew() -> None:
    member = reading(0, 1)
    assert set(member.start_over()) == {0, 1}
    assert not member.start_over()
    assert changes(member) == (NOTHING, {0, 1})
