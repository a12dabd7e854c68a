"""Redis with no more rights than the docs name, and with each command forbidden or renamed."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from serving.redis.commands import LOSSES
from serving.redis.contract import ForeignValue, Recommendations
from serving.redis.errors import (
    CLUSTER_RULE,
    READER_RULE,
    SERVING_RULE,
    RedisMisconfigured,
    prefix_rule,
)
from serving.redis.store import Store
from serving.redis.sweep import Sweep
from tests.commands import run, without_settings
from tests.rooms import Rooms
from tests.services import ROOT, real_redis, redis_cluster, wait_for
from tests.serving.test_outage import FIRST, Serving

LIST = Recommendations(["i", "j"], [0.5, 0.25], ["k", "k"], "v", "live", 3, 4)
VALUE = msgspec.json.encode(LIST)


def as_user(url: str, name: str, rule: str, prefix: str = "p") -> str:
    """The URL of a user who has this right alone."""
    with Redis.from_url(url) as redis:
        rights = ["reset", "on", ">secret", prefix_rule(prefix), *rule.split(" ")]
        redis.execute_command("ACL", "SETUSER", name, *rights)
    return url.replace("//", f"//{name}:secret@")


def use_all(store: Store, deletes: bool = True) -> None:
    """Everything that serving does, with the right results."""
    store.put_users(["u", "v", "w"], [VALUE] * 3)
    store.put_neighbors(["i"], [VALUE])
    store.put_popular(VALUE)
    store.put_model({"version": "v1", "users": 3})
    store.put_published([0, 1], "edition")
    assert store.published([7]) == {}
    assert store.user("u") == store.neighbors("i") == store.popular() == LIST
    before = store.generation()
    assert store.generation() == before
    store.delete_users(["u"])
    wait_for("the list to go", lambda: store.user("u") is None)
    walk = Sweep(store, lambda users: [user for user in users if user == "v"])
    while walk.step():
        pass  # a step for each node of a Cluster
    if deletes:
        wait_for("the list to go", lambda: store.user("v") is None)
    assert store.user("w") == LIST


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with real_redis(tmp_path) as url:
        yield url


def test_serving_needs_no_more_rights_than_the_docs_name(server: str) -> None:
    store = Store(as_user(server, "serving", SERVING_RULE), "p")
    use_all(store)
    assert store.model() == {"version": "v1", "users": "3"}
    assert store.published([0, 1, 2]) == {0: "edition", 1: "edition"}
    assert store.losses() == []
    store.close()
    reader = Store(as_user(server, "reader", READER_RULE), "p")
    assert reader.user("w") == LIST
    assert reader.user("nobody") is None
    reader.close()
    for rule in (SERVING_RULE, READER_RULE, CLUSTER_RULE):
        assert rule in (ROOT / "docs" / "security.md").read_text()


def test_on_a_cluster_too(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as urls:
        for url in urls:
            writing = as_user(url, "serving", f"{SERVING_RULE} {CLUSTER_RULE}")
            reading = as_user(url, "reader", f"{READER_RULE} {CLUSTER_RULE}")
        store, reader = Store(writing, "p"), Store(reading, "p")
        use_all(store)
        assert store.losses() == []
        assert reader.user("w") == LIST
        for each in (store, reader):
            each.close()
        lacking = Store(as_user(urls[2], "lacking", SERVING_RULE), "p")
        with pytest.raises(RedisMisconfigured, match=r"run CLUSTER.*a Cluster: \+cluster\|slots"):
            lacking.generation()
        lacking.close()


@pytest.mark.parametrize("command", sorted(LOSSES))
@pytest.mark.parametrize("way", ["denied", "renamed"])
def test_a_command_that_is_forbidden_has_another_way_or_its_loss_is_told(
    command: str, way: str, tmp_path: Path
) -> None:
    renamed = ["--rename-command", command, ""] if way == "renamed" else []
    with real_redis(tmp_path, 0, *renamed) as url:
        if way == "denied":
            url = as_user(url, "serving", f"{SERVING_RULE} -{command.lower()}")
        store = Store(url, "p")
        for _ in range(2):
            use_all(store, deletes=command != "SCAN")
        assert store.losses() == [f"Redis does not let its user run {command}: {LOSSES[command]}."]
        assert store.losses() == []
        assert (store.server is None) == (command == "INFO")
        store.close()


@pytest.mark.parametrize("command", ["get", "set"])
def test_a_command_that_cannot_be_done_without_is_named_with_the_rule_to_grant(
    command: str, server: str
) -> None:
    store = Store(as_user(server, "serving", f"{SERVING_RULE} -{command}"), "p")
    with pytest.raises(RedisMisconfigured, match=f"run {command.upper()}: grant ~p:.* \\+get"):
        store.generation()
    store.close()
    elsewhere = Store(as_user(server, "other", SERVING_RULE, prefix="q"), "p")
    with pytest.raises(RedisMisconfigured, match="denies its user the keys: grant ~p:"):
        elsewhere.generation()
    elsewhere.close()


def test_serving_without_a_right_that_it_needs_ends_with_code_2_and_one_line(
    embedded: str, server: str, tmp_path: Path
) -> None:
    with Rooms(tmp_path, embedded, server) as rooms:
        prefix = rooms.env["REDIS_PREFIX"]
        url = as_user(server, "lacking", f"{SERVING_RULE} -set", prefix)
        ended = run(["serving"], rooms.env | {"REDIS_URL": url}, seconds=15)
    assert ended.returncode == 2, ended.stderr
    lines = ended.stderr.splitlines()
    assert [line for line in lines if "does not let its user run SET: grant" in line] == lines[-1:]
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr


def test_serving_runs_with_these_rights_and_without_what_it_can_do_without(
    embedded: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with real_redis(tmp_path) as url:
        made = Serving(tmp_path, embedded, as_user(url, "serving", "+get +set", "streamgcn"))
        made.promote(FIRST)
        made.touch(("0-1", "0-2"), ("1-1", "1-2"))
        with made.serving():
            wait_for("a list", lambda: made.store.user("0-1"))
            wait_for("all lists", lambda: "Wrote all lists" in caplog.text)
            made.touch(("2-new", "2-1"))
            wait_for("the newcomer's list", lambda: made.store.user("2-new"))
            names = ("MSET", "INFO", "HSET", "HMGET")
            wait_for("the lines", lambda: all(f"run {name}: " in caplog.text for name in names))
        for name in names:
            assert caplog.text.count(f"run {name}: ") == 1


FOREIGN = {
    "no JSON": b"soon",
    "no UTF-8": b'{"items":["\xff"]}',
    "another shape": b'{"items":"i"}',
    "a list": b"[1, 2]",
    "null": b"null",
    "shorter scores": VALUE.replace(b"[0.5,0.25]", b"[0.5]"),
    "longer reasons": VALUE.replace(b'["k","k"]', b'["k","k","k"]'),
    "an unknown source": VALUE.replace(b'"live"', b'"else"'),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_value_of_another_program_is_named_and_overwritten(kind: str, server: str) -> None:
    store = Store(server, "p")
    with Redis.from_url(server) as redis:
        redis.set("p:rec:u", FOREIGN[kind])
    with pytest.raises(ForeignValue, match="'p:rec:u' in Redis holds no list of StreamGCN"):
        store.user("u")
    assert store.has_user("u")
    store.put_users(["u"], [VALUE])
    assert store.user("u") == LIST
    store.close()


def test_keys_of_another_type_are_in_nobodys_way(server: str) -> None:
    store = Store(server, "p")
    names = ("rec:u", "rec:w", "neighbors:i", "popular", "model", "published", "generation")
    with Redis.from_url(server) as redis:
        for name in names:
            redis.lpush(f"p:{name}", "other")
        redis.set("p:rec:v", b"\xff")
        redis.set(b"p:rec:\xff\xfe", b"\xff")  # whose key is no text either
        with pytest.raises(ForeignValue, match="it is no string"):
            store.user("u")
        assert store.has_user("u")
        assert store.model() == {}
        assert store.published([0]) == {}
        use_all(store)
        assert store.model() == {"version": "v1", "users": "3"}
        redis.delete("p:published")
        redis.hset(
            "p:published", mapping={"x": "y", "0": "edition", b"\xff": b"\xff", "1": b"\xff"}
        )
        assert store.published([0, 1])[0] == "edition"
        redis.set("p:generation", b"\xff")
        assert store.generation() == store.generation()
    store.close()


def test_status_says_that_the_model_is_not_known_where_redis_does_not_tell(
    embedded: str, server: str, tmp_path: Path
) -> None:
    url = as_user(server, "reader", f"{SERVING_RULE} -hmget", prefix="t")
    env = without_settings() | {
        "COLUMNS": "200",
        "KAFKA_BOOTSTRAP_SERVERS": embedded,
        "REDIS_URL": url,
        "REDIS_PREFIX": "t",
        "EDGE_STORE": str(tmp_path / "edges"),
        "MODEL_STORE": str(tmp_path / "models"),
    }
    shown = run(["status"], env).stdout
    assert re.search(r"model\W+not known", shown), shown
    assert "Redis does not let its user run HMGET" in shown
    shown = run(["status"], env | {"REDIS_URL": as_user(server, "all", SERVING_RULE, "t")}).stdout
    assert re.search(r"model\W+none yet", shown), shown
