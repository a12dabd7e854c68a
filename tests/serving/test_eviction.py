"""A Redis whose memory is less than the lists take, under each policy; a real one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from serving.redis.contract import Recommendations
from serving.redis.errors import RedisRefuses
from serving.redis.store import Store
from serving.redis.watch import Watch
from tests.services import real_redis

ITEMS = [f"item number {n}" for n in range(50)]
VALUE = msgspec.json.encode(Recommendations(ITEMS, [0.5] * 50, ITEMS, "v", "model", 3, 4))
USERS = [f"u{n}" for n in range(4_000)]
log = logging.getLogger("serving")


@contextmanager
def small(folder: Path, policy: str, room: int = 4_000_000) -> Iterator[Redis]:
    """A Redis with so much room for lists."""
    with real_redis(folder) as url, Redis.from_url(url) as redis:
        used = int(redis.info("memory")["used_memory"])
        redis.config_set("maxmemory-policy", policy)
        redis.config_set("maxmemory-samples", 3)
        redis.config_set("maxmemory", used + room)
        yield redis


def url(redis: Redis) -> str:
    return f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}/0"


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_throws_lists_away_is_told_once_and_is_not_taken_for_a_flushed_one(
    policy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small(tmp_path, policy) as redis:
        store = Store(url(redis), "p")
        watch = Watch(store, False, log)
        assert not watch.look()
        for begin in range(0, 4_000, 200):
            store.put_users(USERS[begin : begin + 200], [VALUE] * 200)
            if int(redis.info("stats")["evicted_keys"]) > watch.evicted:
                redis.delete("p:generation")  # as the policy may, at any time
            assert not watch.look()
        assert watch.evicted > 1_000
        [line] = caplog.messages
        assert f"maxmemory_policy is {policy}, evicted_keys " in line
        assert "Raise maxmemory" in line
        redis.flushall()
        assert watch.look()
        assert caplog.messages[1:] == ["Redis was restarted or flushed; writing all lists again."]
        assert not watch.look()
        store.close()


def test_lists_that_expire_are_thrown_away_by_a_volatile_policy_and_others_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small(tmp_path, "volatile-lru") as redis:
        brief = Store(url(redis), "p", ttl_seconds=1_000)
        watch = Watch(brief, True, log)
        for begin in range(0, 4_000, 200):
            brief.put_users(USERS[begin : begin + 200], [VALUE] * 200)
            assert not watch.look()
        assert watch.evicted > 1_000
        assert ["maxmemory_policy is volatile-lru" in line for line in caplog.messages] == [True]
        caplog.clear()

        lasting = Store(url(redis), "q")  # throws the brief ones out, then there is no room
        other = Watch(lasting, False, log)
        other.look()
        caplog.clear()
        with pytest.raises(RedisRefuses, match="out of memory"):
            lasting.put_users(USERS, [VALUE] * 4_000)
        redis.config_set("maxmemory", 0)
        other.look()
        assert other.evicted > 100
        assert not caplog.messages  # none of its own
        for each in (brief, lasting):
            each.close()


def test_evictions_before_this_process_began_are_told_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small(tmp_path, "allkeys-lru") as redis:
        store = Store(url(redis), "p")
        store.put_users(USERS, [VALUE] * 4_000)
        watch = Watch(store, False, log)
        watch.look()
        assert "evicted_keys" in caplog.text
        assert watch.evicted == 0
        store.close()


def test_losses_that_may_be_evictions_are_answered_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small(tmp_path, "allkeys-random") as redis:
        store = Store(url(redis), "p")
        watch = Watch(store, False, log)
        watch.look()
        calm = []
        for _ in range(4):
            redis.flushall()  # as if others deleted much, so that it cannot be told
            assert watch.look()
            calm.append(watch.calm)
        assert calm == [True, False, False, False]
        assert watch._wait == 40
        redis.config_set("maxmemory", 0)
        redis.flushall()
        assert watch.look()
        assert watch.calm  # it evicts nothing, so this was a flush for certain
        store.close()
