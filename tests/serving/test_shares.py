"""Several loops that share a topic's partitions write what one writes that reads all of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore
from consumer.event.json import FORGET
from consumer.event.rules import ONLY_HERE
from serving.loop import shares
from serving.redis import share
from serving.redis.contract import Recommendations
from serving.redis.share import ShareUnreadable
from serving.redis.store import Store
from tests.fake_topic import FakeTopic
from tests.graphs import append, pairs
from tests.services import wait_for
from tests.serving.test_loop import FIRST, GRAPH, Loop

N = 4  # partitions
USERS = GRAPH.user_ids.values.to_pylist()
SHARES = [[(0, 1, 2, 3)], [(0, 2), (1, 3)], [(0,), (1,), (2,), (3,)]]


def partition_of(user: str) -> int:
    return sum(user.encode()) % N


class Group:
    """Loops that share a topic, and one with keys of its own in Redis that reads all of it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder, self._redis_url = folder, redis_url
        self.rows = EdgeStore.begin(str(folder / "edges"), "t")
        self.topic = FakeTopic(N, has_id=False)
        for partition in range(N):
            rows = [row for row in pairs(GRAPH) if partition_of(row[0]) == partition]
            append(self.rows, rows, 0, partition)
            self.topic.first[partition] = self.topic.end[partition] = len(rows)
        self.loops: list[Loop] = []
        self.one = self.join((0, 1, 2, 3), prefix=f"{folder.name}-one")
        self.store = Store(redis_url, folder.name)

    def join(self, mine: Sequence[int], prefix: str = "") -> Loop:
        others = self.topic, self.rows, prefix or self.folder.name
        made = Loop(self.folder, self._redis_url, others=others)
        made.reader.assign(*mine)
        self.loops.append(made)
        return made

    def publish(self, user: str, item: str, type: str = "view") -> None:
        self.one.publish(user, item, partition_of(user), type)

    def round(self) -> None:
        for loop in self.loops:
            loop.loop.round()

    def go_on(self, what: str, until: Callable[[], object]) -> None:
        def look() -> object:
            self.round()
            return until()

        wait_for(what, look)

    def lists(self, store: Store, users: Sequence[str]) -> list[Recommendations | None]:
        return [store.user(user) for user in users]

    def has_same(self, users: Sequence[str]) -> bool:
        """Whether the users' lists are those of the loop that reads everything."""
        shared, alone = self.lists(self.store, users), self.lists(self.one.store, users)
        return all(map(same, shared, alone))

    def has_same_popular(self) -> bool:
        """Items that as many users like may be in another order, and the last of them missing."""
        shared, alone = self.store.popular(), self.one.store.popular()
        assert alone
        if shared is None or shared.scores != pytest.approx(alone.scores, rel=1e-4):
            return False
        least = alone.scores[-1] * (1 + 1e-4)
        counted, expected = (
            {i: score for i, score in zip(each.items, each.scores, strict=True) if score > least}
            for each in (shared, alone)
        )
        return counted.keys() == expected.keys() and counted == pytest.approx(expected, rel=1e-4)

    def close(self) -> None:
        self.store.close()
        for loop in self.loops:
            loop.close()


def same(one: Recommendations | None, other: Recommendations | None) -> bool:
    if one is None or other is None:
        return one is other
    scores = one.scores == pytest.approx(other.scores, rel=1e-4, abs=1e-6)
    return scores and (one.items, one.because) == (other.items, other.because)


@pytest.fixture
def group(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    for name, seconds in {
        "partitions.COMMIT_EVERY": 0.0, "shares.EVERY": 0.1, "popular.EVERY": 0.1,
        "model_slot.NEW_ITEMS_EVERY": 0.0, "publication.RENEW_AFTER": 0.0,
        "publication.RENEW_TIMES": 0.0, "growing.SETTLE_AFTER": 0.0, "growing.TIMES_AS_LONG": 0.0,
        "looking.LOOK_EVERY": 0.0, "user_rows.AGAIN_AFTER": 0.0, "user_rows.TIMES_AS_LONG": 0.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"serving.loop.{name}", seconds)
    made = Group(tmp_path, redis_url)
    yield made
    made.close()


@pytest.mark.parametrize("order", [0.0, 1.0])
@pytest.mark.parametrize("mine", SHARES[1:])
def test_lists_popular_items_and_new_items_are_those_of_one_process_with_all_partitions(
    group: Group, mine: list[tuple[int, ...]], order: float
) -> None:
    group.one.promote(FIRST, order)
    loops = [group.join(partitions) for partitions in mine]
    group.go_on("all lists", lambda: None not in group.lists(group.store, USERS))
    group.go_on("the same lists", lambda: group.has_same(USERS))
    held = [loop.edges.n_users for loop in loops]
    assert sum(held) == group.one.edges.n_users == len(USERS)
    assert max(held) < len(USERS)

    likers = [user for user in USERS if user.startswith("2-")][:6]
    assert len(set(map(partition_of, likers))) == N
    for user in likers:
        group.publish(user, "brand new")
    for number in range(8):
        group.publish(f"newcomer {number}", f"1-{number}")
    newcomers = [f"newcomer {number}" for number in range(8)]

    def all_recommend() -> bool:
        found = group.lists(group.store, [user for user in USERS if user.startswith("2-")])
        return any(each and "brand new" in each.items for each in found)

    group.go_on("a list with the new item", all_recommend)
    group.go_on("the same lists", lambda: group.has_same([*USERS, *newcomers]))
    models = [loop.slot.recommender.model for loop in (group.one, *loops) if loop.slot.recommender]
    rows = [model.embeddings.outgoing[model.numbers["brand new"]] for model in models]
    assert len(rows) == len(mine) + 1
    for row in rows:
        assert row.tolist() == pytest.approx(rows[0].tolist(), rel=1e-5, abs=1e-6)

    group.go_on("the same popular items", group.has_same_popular)


def test_when_a_process_is_gone_another_takes_its_users_and_counts_them_once(group: Group) -> None:
    group.one.promote(FIRST)
    first, second = group.join((0, 1)), group.join((2, 3))
    group.go_on("all lists", lambda: None not in group.lists(group.store, USERS))
    group.loops.remove(second)  # it is killed
    first.reader.assign(0, 1, 2, 3)
    for user in USERS:
        group.publish(user, "0-1")
    group.go_on("the same lists", lambda: group.has_same(USERS))
    assert first.edges.held is None

    group.go_on("the same popular items", group.has_same_popular)
    first.reader.assign(0)
    again = group.join((1, 2, 3))
    for user in USERS:
        group.publish(user, "0-2")
    group.go_on("the same lists", lambda: group.has_same(USERS))
    group.go_on("the same popular items", group.has_same_popular)
    assert first.edges.n_users + again.edges.n_users == len(USERS)
    second.close()


def users_with_rows(loop: Loop) -> set[str]:
    """Those of USERS of whom the model in use has a row."""
    recommender = loop.slot.recommender
    return {u for u in USERS if recommender and recommender.model.number(u) >= 0}


def users_of(*partitions: int) -> set[str]:
    return {user for user in USERS if partition_of(user) in partitions}


def test_of_a_model_with_a_row_for_each_user_a_process_has_the_rows_of_its_own_users_alone(
    group: Group,
) -> None:
    group.one.promote(FIRST)
    first, second = group.join((0, 1)), group.join((2, 3))
    group.go_on("all lists", lambda: None not in group.lists(group.store, USERS))
    assert users_with_rows(group.one) == set(USERS)
    group.go_on("own rows alone", lambda: users_with_rows(first) == users_of(0, 1))
    group.go_on("own rows alone", lambda: users_with_rows(second) == users_of(2, 3))
    first.reader.assign(0)
    second.reader.assign(1, 2, 3)
    group.go_on("the rows to come", lambda: users_with_rows(second) == users_of(1, 2, 3))
    group.go_on("the rows to go", lambda: users_with_rows(first) == users_of(0))


def one_who_goes_over(group: Group) -> tuple[Loop, Loop, str, set[str]]:
    """A user of the first of two processes whose next event comes by a partition of the second.

    Returns:
        Both processes, the user, and the items of all the user's edges, which the second has.
    """
    group.one.promote(FIRST)
    first, second = group.join((0, 1)), group.join((2, 3))
    group.go_on("all lists", lambda: None not in group.lists(group.store, USERS))
    user = next(user for user in USERS if partition_of(user) == 0)
    items = {*first.edges.items(user), "3-1"}
    group.one.publish(user, "3-1", partition=2)
    group.go_on("the edges to come", lambda: second.edges.items(user).keys() == items)
    return first, second, user, items


def test_a_user_whose_events_go_over_to_another_process_reads_a_list_of_all_edges(
    group: Group,
) -> None:
    first, second, user, items = one_who_goes_over(group)
    group.go_on("the same list", lambda: group.has_same([user]))
    append(group.rows, [(user, "3-1")], group.topic.end[2] - 1, 2)
    group.go_on("the process before to leave the user", lambda: not first.edges.has(user))
    group.go_on("the same list", lambda: group.has_same([user]))
    assert second.edges.items(user).keys() == items


def test_a_user_with_events_in_partitions_of_two_processes_is_forgotten_by_both(
    group: Group,
) -> None:
    first, second, user, _ = one_who_goes_over(group)
    append(group.rows, [(user, "3-1")], group.topic.end[2] - 1, 2)
    group.go_on("the process before to leave the user", lambda: not first.edges.has(user))
    for partition in range(N):
        group.one.publish(user, "", partition, FORGET, headers=(ONLY_HERE,))
    group.go_on("the list to go", lambda: not group.store.user(user))
    for _ in range(5):
        group.round()
    assert not group.store.user(user)
    assert not first.edges.has(user)
    assert not second.edges.has(user)


def test_what_cannot_be_read_of_another_process_is_left_out_and_said_once(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    group.one.promote(FIRST)
    first = group.join((0, 1))
    group.store.put_share([2], b'{"format":7}')
    group.go_on("the popular list", group.store.popular)
    for _ in range(3):
        first.loop._shares.hurry()
        first.loop._looked_at = 0.0
        group.round()
    [line] = [line for line in caplog.messages if "What another process says" in line]
    assert "of partition 2 is left out: it has format 7" in line
    group.join((2, 3))
    group.go_on("both shares", lambda: first.loop._shares.popular)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"[]", b"\xff", b'{"format":1}', b'{"format":1e999}',
        b'{"format":1,"items":["i"],"counts":[],"latest":0,"model":"","likers":[],"newest":0}',
        b'{"format":1,"items":["i"],"counts":[-1],"latest":0,"model":"","likers":[],"newest":0}',
        b'{"format":1,"items":["\\ud800"],"counts":[1],"latest":0,"model":"","likers":[],'
        b'"newest":0}',
        b'{"format":1,"items":[],"counts":[],"latest":9e18,"model":"","likers":[],"newest":0}',
        b'{"format":1,"items":[],"counts":[],"latest":0,"model":"","newest":0,'
        b'"likers":[{"edges":{"i":[1,1e40]}}]}',
        b'{"format":1,"items":[],"counts":[],"latest":0,"model":"","newest":0,'
        b'"likers":[{"edges":{"i":[99999999999999999999,1]}}]}',
    ],
)  # fmt: skip
def test_a_value_that_is_no_share_is_refused(value: bytes) -> None:
    with pytest.raises(ShareUnreadable):
        share.read(value)


def test_a_share_is_read_as_it_was_written_and_ids_are_any_text(group: Group) -> None:
    group.one.promote(FIRST)
    first = group.join((0, 1))
    for number in range(3):
        group.publish(f"{number}\n{{", 'new "item"\n')
    first.reader.assign(0, 1)
    group.go_on("the share", lambda: group.store.shares(range(N)).keys() == {0})
    own = {user for user in (f"{n}\n{{" for n in range(3)) if partition_of(user) in (0, 1)}

    def told() -> int:
        found = share.read(group.store.shares([0])[0])
        return len(found.likers) == len(own)

    group.go_on("the likers", told)
    assert set(share.read(group.store.shares([0])[0]).items) <= set(
        first.edges.popular(shares.MOST_COUNTED).items
    )
