"""Which lists are deleted, on a real Redis."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from consumer.edge.traces import digest
from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from serving.loop.forgetting import CLOCKS_APART, Forgetting
from serving.redis import commands
from serving.redis.contract import Recommendations
from serving.redis.errors import RedisDown
from serving.redis.store import Store
from trainer.graph.weights import Weighing


@pytest.fixture
def store(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(redis_url, request.node.name)
    yield made
    made.close()


def write(store: Store, *users: str, event_at: int = 5, updated_at: int = 9) -> None:
    value = Recommendations(["i"], [0.5], ["j"], "v", "live", event_at, updated_at)
    store.put_users(users, [msgspec.json.encode(value)] * len(users))


def edges_of(*users: str) -> UserEdges:
    made = UserEdges(Weighing())
    for offset, user in enumerate(users):
        made.apply(Event(user, "i", 1.0, 5, "view"), 0, Position(offset, 0))
    return made


def finish(forgetting: Forgetting) -> int:
    """Step until all is done; returns the steps."""
    steps = 0
    while forgetting.working:
        forgetting.step()
        steps += 1
    return steps


def test_lists_of_forgotten_users_go_and_stay_of_users_who_came_again(store: Store) -> None:
    write(store, "named", "by digest", "came again", "expired", "other")
    forgetting = Forgetting(store, edges_of("came again", "other"))
    forgetting.note("named")
    forgetting.note_digests({digest("by digest"), digest("came again"), digest("never there")})
    forgetting.note_expired(["expired"])
    finish(forgetting)
    left = {u for u in ("named", "by digest", "came again", "expired", "other") if store.user(u)}
    assert left == {"came again", "other"}


def test_many_lists_that_expire_at_once_take_many_steps_and_who_comes_again_keeps_the_list(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.loop.forgetting.AT_ONCE", 10)
    users = [f"u{n}" for n in range(25)]
    edges = edges_of()
    forgetting = Forgetting(store, edges)
    forgetting.note_expired(users)
    edges.apply(Event("u0", "i", 1.0, 5, "view"), 0, Position(0, 0))
    write(store, *users)
    assert finish(forgetting) == 3
    assert [user for user in users if store.user(user)] == ["u0"]


def test_a_walk_over_many_lists_takes_many_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PAGE", 10)
    users = [f"u{n}" for n in range(300)]
    write(store, *users)
    forgetting = Forgetting(store, edges_of())
    forgetting.note_digests({digest(user) for user in users[::2]})
    forgetting.step()
    assert forgetting.working
    forgetting.note_digests({digest("u1")})  # while it walks
    assert finish(forgetting) > 20
    assert {user for user in users if store.user(user)} == set(users[3::2])


def test_lists_of_users_whose_edges_expired_while_nobody_looked_go_by_their_newest_event(
    store: Store,
) -> None:
    write(store, "old", "old but here", event_at=5)
    write(store, "new", event_at=50)
    forgetting = Forgetting(store, edges_of("old but here"))
    forgetting.note_old(10)
    finish(forgetting)
    assert [store.user(u) is None for u in ("old", "old but here", "new")] == [True, False, False]


def test_a_later_look_for_expired_edges_counts_also_where_redis_restarts_in_a_walks_midst(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PAGE", 10)
    users = [f"u{n}" for n in range(300)]
    write(store, *users)
    forgetting = Forgetting(store, edges_of())
    forgetting.note_old(2)
    forgetting.step()
    assert forgetting.working
    forgetting.note_old(10)
    forgetting.start_over()
    finish(forgetting)
    assert not any(store.user(user) for user in users)


def test_what_an_old_dump_brings_back_is_deleted_again(store: Store) -> None:
    write(store, "u", "v", "old")
    forgetting = Forgetting(store, edges_of())
    forgetting.note("u")
    forgetting.note_digests({digest("v")})
    forgetting.note_old(2)
    finish(forgetting)
    write(store, "u", "v")
    assert not forgetting.working
    forgetting.start_over()
    finish(forgetting)
    assert store.user("u") is store.user("v") is None
    assert store.user("old")
    assert forgetting.digests == {digest("u"), digest("v")}


def test_where_redis_is_away_all_stays_to_be_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "u", "v")
    forgetting = Forgetting(store, edges_of())
    forgetting.note("u")
    forgetting.note_digests({digest("v")})

    def refuse(*_: object) -> None:
        raise RedisDown("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete_users", refuse)
        with pytest.raises(RedisDown):
            forgetting.step()
    assert forgetting.working
    finish(forgetting)
    assert store.user("u") is store.user("v") is None


def test_where_a_partition_is_lost_before_lists_are_deleted_newer_lists_of_its_new_owner_stay(
    store: Store,
) -> None:
    users = "came again", "came back", "gone"
    write(store, *users)
    forgetting = Forgetting(store, edges_of())  # which does not know who came to another process
    forgetting.note("came again")
    forgetting.note("gone")
    forgetting.note_expired(["came back"])
    forgetting.lose()
    write(store, *users[:2], updated_at=int(time.time() * 1000) + 2 * CLOCKS_APART)
    finish(forgetting)
    assert [store.user(user) is None for user in users] == [False, False, True]


def test_a_list_that_another_process_wrote_for_a_user_who_came_again_stays_after_a_restart_of_redis(
    store: Store,
) -> None:
    users = "named", "by digest"
    write(store, *users)
    forgetting = Forgetting(store, edges_of())  # which does not know other partitions' newest users
    forgetting.note("named")
    forgetting.note_digests({digest("by digest")})
    finish(forgetting)
    for _ in range(2):  # however often Redis is restarted
        forgetting.start_over()
        write(store, *users, updated_at=int(time.time() * 1000) + 2 * CLOCKS_APART)
        finish(forgetting)
        assert all(store.user(user) for user in users)
    forgetting.note_digests({digest("by digest")})  # is forgotten again
    finish(forgetting)
    assert store.user("by digest") is None
    assert store.user("named")
