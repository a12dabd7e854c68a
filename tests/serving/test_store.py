"""The Redis contract on a real Redis, on a Cluster, and where Redis refuses."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis
from redis.client import Pipeline

from serving.redis import commands
from serving.redis.contract import Recommendations
from serving.redis.errors import RedisDown, RedisRefuses
from serving.redis.store import Store
from serving.redis.sweep import Choose, Sweep
from serving.redis.wire import BLOCK
from streamgcn.services.ports import free_port
from tests.services import PATIENCE, real_redis, redis_cluster, wait_for
from tests.threads import begun

LIST = Recommendations(["i", "ü:\n*"], [0.5, 0.25], ["j", "j"], "v", "live", 3, 4)
VALUE = msgspec.json.encode(LIST)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as urls:
        yield urls


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A Redis, then a Cluster of three nodes, named by one of them."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return str(request.getfixturevalue("cluster")[1])


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    made = Store(url, tmp_path.name)
    yield made
    made.close()


def test_what_is_written_is_read_each_in_its_place(store: Store) -> None:
    users = [f"u{n}" for n in range(2 * BLOCK + 1)]
    values = [msgspec.json.encode(msgspec.structs.replace(LIST, event_at=n)) for n in range(513)]
    store.put_users([*users, "ü:\n*"], [*values, VALUE])
    for n in (0, BLOCK - 1, BLOCK, 2 * BLOCK):
        found = store.user(f"u{n}")
        assert found is not None
        assert found.event_at == n
    assert store.user("ü:\n*") == LIST
    assert store.user("nobody") is store.popular() is store.neighbors("i") is None
    store.put_neighbors(["i"], [VALUE])
    store.put_popular(VALUE)
    assert store.neighbors("i") == store.popular() == LIST


def test_a_model_is_replaced_with_all_its_fields(store: Store) -> None:
    assert store.model() == {}
    store.put_model({"version": "v1", "users": 3, "ndcg@20": 0.25})
    assert store.model() == {"version": "v1", "users": "3", "ndcg@20": "0.25"}
    store.put_model({"version": "v2", "users": 4, "ndcg@20": 0.5})
    assert store.model() == {"version": "v2", "users": "4", "ndcg@20": "0.5"}


def test_lists_go_by_name_and_by_digest_and_no_others(store: Store, url: str) -> None:
    users = [f"u{n}" for n in range(40)]
    store.put_users(users, [VALUE] * 40)
    other = Store(url, "*")  # a prefix that is a pattern stands for itself
    sweep(other, lambda found: found)
    store.delete_users(["u0", "never there"])
    gone = {"u1", "u39", "never there"}
    sweep(store, lambda found: [user for user in found if user in gone])
    assert {user for user in users if store.user(user) is None} == {"u0", "u1", "u39"}
    other.close()


def test_no_pipeline_is_longer_than_a_block(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    execute = Pipeline.execute

    def counted(pipe: Pipeline, raise_on_error: bool = True) -> list[Any]:
        lengths.append(len(pipe))
        return execute(pipe, raise_on_error)

    monkeypatch.setattr(Pipeline, "execute", counted)
    store = Store(redis_url, tmp_path.name, ttl_seconds=1_000)
    users = [f"u{n}" for n in range(2 * BLOCK + 1)]
    store.put_users(users, [VALUE] * len(users))
    assert store.event_times(users) == [3] * len(users)
    store.delete_users(users)
    assert store.event_times(users) == [None] * len(users)
    assert lengths == [BLOCK, BLOCK, 1] * 4
    store.close()


def test_a_walk_over_all_lists_goes_on_after_each_step_and_meets_every_list(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PAGE", 10)
    users = {f"u{n}" for n in range(300)}
    store.put_users(list(users), [VALUE] * 300)
    met: list[str] = []
    assert sweep(store, lambda found: met.extend(found) or []) > 10  # type: ignore[func-returns-value]  # it returns None
    assert set(met) == users


def test_the_time_of_the_newest_event_is_read_of_many_lists_and_of_nothing_else(
    store: Store,
) -> None:
    store.put_users(["u", "foreign"], [VALUE, b"{}"])
    assert store.event_times(["u", "nobody", "foreign"]) == [3, None, None]
    assert store.event_times([]) == []
    assert store.update_times(["nobody", "foreign"]) == [None, None]


def sweep(store: Store, choose: Choose) -> int:
    """Walk over all lists; returns the number of steps."""
    walk, steps = Sweep(store, choose), 1
    while walk.step():
        steps += 1
    return steps


def test_lists_expire_where_a_time_is_set_and_not_where_there_is_none_any_more(
    store: Store, url: str, tmp_path: Path
) -> None:
    brief = Store(url, tmp_path.name, ttl_seconds=1_000)
    brief.put_users(["u", "v"], [VALUE, VALUE])
    brief.put_neighbors(["i"], [VALUE])
    brief.put_popular(VALUE)

    def seconds(key: str) -> int:
        name = f"{tmp_path.name}:{key}"
        return int(store._commands._connection.call(lambda client: client.ttl(name)))

    for key in ("rec:u", "rec:v", "neighbors:i"):
        assert 990 < seconds(key) <= 1_000
    assert seconds("popular") == -1
    store.put_users(["u"], [VALUE])
    assert seconds("rec:u") == -1
    brief.close()


def test_the_cluster_shares_the_lists_out_to_all_its_nodes(
    cluster: list[str], tmp_path: Path
) -> None:
    store = Store(cluster[0], tmp_path.name)
    store.put_users([f"u{n}" for n in range(100)], [VALUE] * 100)
    store.close()
    for node in cluster:
        with Redis.from_url(node) as redis:
            assert len(list(redis.scan_iter(f"{tmp_path.name}:rec:*"))) > 10


def test_closing_leaves_no_connection_to_any_node_of_a_cluster(
    cluster: list[str], tmp_path: Path
) -> None:
    def connected(redis: Redis) -> int:
        return len(redis.client_list())

    with ExitStack() as stack:
        nodes = [stack.enter_context(Redis.from_url(node)) for node in cluster]
        store = Store(cluster[0], tmp_path.name)
        store.put_users([f"u{n}" for n in range(100)], [VALUE] * 100)
        during = [connected(node) for node in nodes]
        store.close()
        wait_for(
            "the ends", lambda: all(connected(n) < d for n, d in zip(nodes, during, strict=True))
        )


def test_the_generation_changes_when_redis_was_flushed_or_restarted(tmp_path: Path) -> None:
    port = free_port()
    store = Store(f"redis://127.0.0.1:{port}/0", "p")
    seen = []
    with real_redis(tmp_path, port, "--dir", str(tmp_path)) as url, Redis.from_url(url) as redis:
        seen += [store.generation(), store.generation()]
        redis.flushall()
        seen += [store.generation(), store.generation()]
        redis.save()
    with real_redis(tmp_path, port, "--dir", str(tmp_path)):  # the dump has the key
        seen += [store.generation(), store.generation()]
    store.close()
    assert [seen.index(each) for each in seen] == [0, 0, 2, 2, 4, 4]


def test_each_way_to_refuse_a_list_is_told_with_its_cause_and_its_mending(tmp_path: Path) -> None:
    with real_redis(tmp_path) as url, Redis.from_url(url) as redis:
        store = Store(url, "p")

        def refused(*command: str) -> RedisRefuses:
            redis.execute_command(*command)
            with pytest.raises(RedisRefuses) as error:
                store.put_users(["secret user"] * 3, [VALUE] * 3)
            assert "secret user" not in str(error.value)
            return error.value

        full = refused("CONFIG", "SET", "maxmemory", "1")
        assert full.code == "OOM"
        assert "out of memory: raise its maxmemory" in str(full)
        store._ttl = 5  # pipelines name the command in their errors
        assert refused("CONFIG", "SET", "maxmemory", "1").code == "OOM"
        redis.config_set("maxmemory", "0")
        replica = refused("REPLICAOF", "127.0.0.1", "1")
        assert replica.code == "READONLY"
        assert "read-only replica: name its primary in REDIS_URL" in str(replica)
        redis.execute_command("REPLICAOF", "NO", "ONE")
        denied = refused("ACL", "SETUSER", "default", "-set", "-mset")
        assert denied.code == "NOPERM"
        assert "grant ~p:*" in str(denied)
        redis.execute_command("ACL", "SETUSER", "default", "+@all")
        store.put_users(["u"], [VALUE])
        redis.config_set("requirepass", "hunter2")
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(RedisRefuses, match="refuses the user and password"):
            store.put_users(["u"], [VALUE])
        wrong = Store(url.replace("//", "//:hunter3@"), "p")
        with pytest.raises(RedisRefuses, match="refuses the user and password") as error:
            wrong.user("u")
        assert error.value.code == "NOAUTH"
        assert "hunter3" not in str(error.value)
        right = Store(url.replace("//", "//:hunter2@"), "p")
        assert right.user("u") == LIST
        for each in (store, wrong, right):
            each.close()


def test_a_redis_that_is_not_there_is_told_as_such() -> None:
    store = Store("redis://:hunter2@127.0.0.1:1/0", "p")
    with pytest.raises(RedisDown, match=r"does not answer: .*refused") as error:
        store.user("u")
    assert not isinstance(error.value, RedisRefuses)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@host:6379/0",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@host/0?socket_timeout=hunter2",
        "redis://host/0?nonsense=hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(RedisDown, match=r"REDIS_URL is refused: .* is the form") as error:
        Store(url, "p")
    assert "hunter2" not in str(error.value)


def test_a_password_that_a_server_repeats_is_not_shown() -> None:
    answer = b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def repeat() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer * 8)

        repeating = begun(repeat)
        store = Store(f"redis://:hunter2@127.0.0.1:{server.getsockname()[1]}/0", "p")
        with pytest.raises(RedisDown) as error:
            store.user("u")
        server.shutdown(socket.SHUT_RDWR)
    repeating.result(PATIENCE)
    assert "run AUTH" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_cluster_goes_on_with_the_replica_of_a_node_that_died(tmp_path: Path) -> None:
    with redis_cluster(tmp_path, replicas=1) as urls:
        store = Store(urls[0], "p")
        users = [f"u{n}" for n in range(100)]
        store.put_users(users, [VALUE] * 100)
        before = store.generation()
        with Redis.from_url(urls[0]) as dying:
            dying.shutdown(nosave=True)
        with pytest.raises(RedisDown):
            store.put_users(users, [VALUE] * 100)

        def written() -> bool:
            try:
                store.put_users(users, [VALUE] * 100)
            except RedisDown:
                return False
            return True

        wait_for("the replica to take over", written)
        assert all(store.user(user) for user in users)
        assert store.generation() != before  # what the node had not told its replica is lost
        store.close()
