"""Users whose events come by another partition from one on, which another process reads."""

from collections.abc import Collection, Iterator, Set
from pathlib import Path

import pytest

from consumer.edge.store import Watermark
from serving.edges.elsewhere import Seen
from serving.loop import looking, partitions, settled
from serving.loop.looking import Looking
from serving.redis.contract import Recommendations
from tests.graphs import append
from tests.serving.test_loop import GRAPH, SECOND, Loop

MOVED = "0-1"  # was stored with all others in partition 0
OWN = len(GRAPH)  # offset in partition 0 behind what is stored


@pytest.fixture
def loop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """Of two partitions, one of which is read here."""
    monkeypatch.setattr(partitions, "COMMIT_EVERY", 0.0)
    monkeypatch.setattr(looking, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(settled, "AGAIN_AFTER", 0.5)
    made = Loop(tmp_path, redis_url, n_partitions=2)
    made.load_second.set()
    yield made
    made.loop._looking.close()
    made.close()


def move_away(loop: Loop) -> Recommendations:
    """The user's next event comes by partition 1; returns the list that its process writes."""
    append(loop.rows, [(MOVED, "0-3")], 0, partition=1)
    loop.go_on("it to be seen", lambda: loop.edges.is_away(MOVED))
    loop.put(MOVED, 77)
    found = loop.store.user(MOVED)
    assert found
    return found


def test_a_user_who_has_moved_to_another_process_is_left_to_it_when_all_lists_are_written(
    loop: Loop,
) -> None:
    loop.start(0)
    others = move_away(loop)
    loop.promote(SECOND)
    loop.go_on("all lists", lambda: loop.published(SECOND, 0))
    assert loop.store.user(MOVED) == others
    stayed = loop.store.user("0-2")
    assert stayed
    assert stayed.model == SECOND


def test_a_process_that_lags_writes_no_list_of_a_user_who_has_moved_since(loop: Loop) -> None:
    loop.start(0)
    append(loop.rows, [(MOVED, "0-2")], OWN)  # which is read here only after what follows
    others = move_away(loop)
    loop.publish(MOVED, "0-2")
    loop.publish("0-2", "0-4")
    loop.go_on("both to be answered", lambda: loop.reader.committed_offsets == {0: OWN + 2})
    assert loop.store.user(MOVED) == others


def test_a_user_who_comes_back_is_written_here_again_with_what_came_elsewhere(loop: Loop) -> None:
    loop.start(0)
    others = move_away(loop)
    loop.publish(MOVED, "0-2")
    append(loop.rows, [(MOVED, "0-2")], OWN)
    loop.go_on("the growth", lambda: not loop.edges.unsettled)
    loop.go_on("the list", lambda: loop.has_newer(MOVED, others))
    assert loop.edges.items(MOVED).keys() >= {"0-2", "0-3"}


def test_a_user_who_comes_here_has_the_edges_that_no_one_here_has_read(loop: Loop) -> None:
    """The user is unknown here: all events came by the other partition since the store was read."""
    loop.start(0)
    append(loop.rows, [("came", "0-3"), ("came", "0-4")], 0, partition=1)
    loop.publish("came", "0-5")
    append(loop.rows, [("came", "0-5")], OWN)
    loop.go_on("the edges", lambda: loop.edges.items("came").keys() == {"0-3", "0-4", "0-5"})
    made = loop.store.user("came")
    assert made
    loop.put("came", 1)  # the process before did not know yet, and wrote what it had
    loop.go_on("the list again", lambda: loop.has_newer("came", made))


def test_the_newest_row_of_the_store_says_whose_a_user_is_also_where_it_was_stored_late(
    loop: Loop,
) -> None:
    """The event of the old partition is the older one, but its consumer was behind."""
    loop.start(1)
    append(loop.rows, [(MOVED, "0-3")], 0, partition=1)
    loop.publish(MOVED, "0-3", partition=1)
    loop.go_on("the list", lambda: loop.store.user(MOVED))
    append(loop.rows, [(MOVED, "0-2")], OWN)
    loop.go_on("it to be seen", lambda: loop.edges.partition(MOVED) == 0)
    loop.put(MOVED, 77)
    others = loop.store.user(MOVED)
    loop.publish("0-2", "0-4", partition=1)
    loop.promote(SECOND)
    loop.go_on("all lists", lambda: loop.published(SECOND, 1))
    loop.go_on("another's list", lambda: loop.store.user("0-2"))
    assert loop.store.user(MOVED) == others


@pytest.mark.parametrize("moved", [[], [MOVED]])
def test_a_process_with_all_partitions_looks_back_once_for_users_of_several_and_then_for_nobody(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, moved: list[str]
) -> None:
    looks: list[Collection[str] | None] = []
    look = Looking._look

    def note(
        looking: Looking,
        watermark: Watermark,
        mine: Set[int],
        among: Collection[str] | None = None,
    ) -> Seen:
        looks.append(among)
        return look(looking, watermark, mine, among)

    monkeypatch.setattr(Looking, "_look", note)
    for user in moved:
        append(loop.rows, [(user, "0-3")], 0, partition=2)
    loop.start(0, 1)
    append(loop.rows, [("came", "0-3")], 0, partition=1)
    loop.publish("came", "0-3", partition=1)
    loop.go_on("the list", lambda: loop.store.user("came"))
    assert looks == ([moved] if moved else [])


@pytest.mark.parametrize("then", [[1], [0, 1]])
def test_who_takes_a_partition_over_writes_the_lists_that_the_process_before_had_not_settled(
    loop: Loop, then: list[int]
) -> None:
    """All is stored and answered, so that nothing but the look back tells of the user."""
    append(loop.rows, [(MOVED, "0-3")], 0, partition=1)
    loop.publish(MOVED, "0-3", partition=1)
    loop.reader.committed_offsets = {0: OWN, 1: 1}
    loop.start(0, 1)
    loop.reader.assign(0)
    loop.go_on("the user to be left", lambda: not loop.edges.has(MOVED))
    loop.go_on("nothing to be left to write", lambda: not loop.loop._settled._again)
    loop.put(MOVED, 77)
    older = loop.store.user(MOVED)
    assert older
    loop.reader.assign(*then)
    loop.go_on("the list", lambda: loop.has_newer(MOVED, older))
