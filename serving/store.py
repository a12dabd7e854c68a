"""The Redis contract; the only file that imports redis.

<prefix>:rec:<user_id>         a user's list        STRING, JSON of Recommendations
<prefix>:popular               for everyone else    STRING, the same
<prefix>:neighbors:<item_id>   similar items        STRING, the same
<prefix>:model                 the live model       HASH
<prefix>:generation            see generation()     STRING, random
<prefix>:published             see put_published()  HASH, by Kafka partition
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal
from uuid import uuid4

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    RedisClusterException,
)
from redis.retry import Retry

from consumer.edge.traces import digest
from process.errors import StreamGCNError

BLOCK = 256  # values a command or a pipeline: half a megabyte of lists of 50 items
OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "decode_responses": True,
}
Client = redis.Redis | redis.RedisCluster


class RedisDown(StreamGCNError):
    """Redis does not answer; the text says why. No password is ever in it."""

    code = ""  # of the refusal


class RedisRefuses(RedisDown):
    """Redis answers and refuses; the text says what to do, `code` is the first word of its answer.

    Near its limit of memory it may take the next write again, and refuse the one after.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Recommendations(msgspec.Struct):
    """One value of the contract; `items`, `scores` and `because` run in parallel, best first.

    `because` names the user's own item with the largest share of the score; empty in lists that
    no user's items led to. event_at and updated_at are epoch milliseconds.
    """

    items: list[str]
    scores: list[float]
    because: list[str]
    model: str
    source: Literal["model", "live", "popular"]
    event_at: int
    updated_at: int


class Store:
    """Writes and reads the contract's keys. A value is replaced whole, never seen in part."""

    def __init__(self, url: str, prefix: str, ttl_seconds: int | None = None) -> None:
        """Nothing is connected before the first call, which also finds out if it is a Cluster.

        Args:
            url: of a Redis or of any node of a Redis Cluster.
            prefix: of every key.
            ttl_seconds: after which lists of users and of similar items expire; None: never.

        Raises:
            RedisDown: `url` is not a Redis URL.
        """
        self._url, self._prefix, self._ttl = url, prefix, ttl_seconds
        self._open: Client | None = None
        try:
            pool = redis.ConnectionPool.from_url(url)
            pool.make_connection()
        except (ValueError, TypeError):  # the text may hold a part of the password
            raise RedisDown(
                "REDIS_URL is refused: redis://user:password@host:6379/0 is the form, with / ? # @ "
                "and % in a password as %2F %3F %23 %40 %25"
            ) from None
        self._secret: str = pool.connection_kwargs.get("password") or ""

    def put_users(self, users: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the lists of users: JSON of Recommendations, in the order of `users`."""
        self._put([f"{self._prefix}:rec:{user}" for user in users], values, self._ttl)

    def put_neighbors(self, items: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the similar items of items: JSON of Recommendations, in the order of `items`."""
        self._put([f"{self._prefix}:neighbors:{item}" for item in items], values, self._ttl)

    def put_popular(self, value: Recommendations) -> None:
        """Write the list for users without one."""
        self._put([f"{self._prefix}:popular"], [msgspec.json.encode(value)], None)

    def put_model(self, fields: Mapping[str, str | int | float]) -> None:
        """Replace the description of the live model."""
        key = f"{self._prefix}:model"
        with self._client() as client, client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping={name: str(value) for name, value in fields.items()})
            pipe.execute()

    def delete_users(self, users: Iterable[str]) -> None:
        """Delete the lists of users."""
        with self._client() as client, client.pipeline(transaction=False) as pipe:
            for user in users:
                pipe.delete(f"{self._prefix}:rec:{user}")
            _raise_first(pipe.execute(raise_on_error=False))

    def delete_digests(self, digests: Collection[str], keep: Callable[[str], bool]) -> None:
        """Delete the lists of users by the digests of their ids; looks at every list's key.

        Args:
            keep: whether a user is to keep its list: one who came again.
        """
        start = len(f"{self._prefix}:rec:")
        with self._client() as client:  # of a Cluster, the keys of all primaries
            keys = client.scan_iter(f"{_literal(self._prefix)}:rec:*", count=1_000)
            users = (key[start:] for key in keys)
            found = [user for user in users if digest(user) in digests and not keep(user)]
        self.delete_users(found)

    def generation(self) -> str:
        """A word that is the same as long as Redis has kept all that was written to it.

        Another one means that it was restarted or flushed, or that a replica took over, and that
        lists may be lost. Asking is a write, so it fails where writes are refused.
        """
        key = f"{self._prefix}:generation"
        with self._client() as client:
            client.set(key, uuid4().hex, nx=True)
            runs = [str(node.info("server").get("run_id")) for node in _primaries(client)]
            return " ".join([str(client.get(key)), *sorted(runs)])

    def put_published(self, partitions: Iterable[int], mark: str) -> None:
        """Note with a mark what the lists of the users of these Kafka partitions are made of."""
        with self._client() as client:
            for partition in partitions:
                client.hset(f"{self._prefix}:published", str(partition), mark)

    def published(self) -> dict[int, str]:
        """Partition -> mark; what Redis has lost is missing."""
        with self._client() as client:
            fields = client.hgetall(f"{self._prefix}:published")
        return {int(partition): str(mark) for partition, mark in fields.items()}

    def user(self, user: str) -> Recommendations | None:
        """The list of a user, None if there is none."""
        return self._get(f"{self._prefix}:rec:{user}")

    def popular(self) -> Recommendations | None:
        """The list for users without one, None before the first event."""
        return self._get(f"{self._prefix}:popular")

    def neighbors(self, item: str) -> Recommendations | None:
        """Items similar to an item, None if it is not in the model."""
        return self._get(f"{self._prefix}:neighbors:{item}")

    def model(self) -> dict[str, str]:
        """The description of the live model, empty if there is none."""
        with self._client() as client:
            fields = client.hgetall(f"{self._prefix}:model")
        return {str(name): str(value) for name, value in fields.items()}

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        client, self._open = self._open, None
        if isinstance(client, redis.RedisCluster):
            client.disconnect_connection_pools()  # its own close leaves them open
        if client:
            client.close()

    def _put(self, keys: Sequence[str], values: Sequence[bytes], ttl: int | None) -> None:
        with self._client() as client:
            for begin in range(0, len(keys), BLOCK):
                pairs = zip(keys[begin : begin + BLOCK], values[begin : begin + BLOCK], strict=True)
                if ttl is None and not isinstance(client, redis.RedisCluster):
                    client.execute_command("MSET", *chain.from_iterable(pairs))
                    continue
                expiry = () if ttl is None else ("EX", ttl)
                with client.pipeline(transaction=False) as pipe:
                    for key, value in pairs:
                        pipe.execute_command("SET", key, value, *expiry)
                    _raise_first(pipe.execute(raise_on_error=False))

    def _get(self, key: str) -> Recommendations | None:
        with self._client() as client:
            value = client.get(key)
        return None if value is None else msgspec.json.decode(value, type=Recommendations)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        """The client, for one call; after an error all is found out and connected anew.

        The name may stand for another server by then: a replica that took over. A Cluster's client
        knows its other nodes and is kept as long as it reaches one.
        """
        try:
            self._open = self._open or _connect(self._url)
            yield self._open
        except (redis.RedisError, RedisClusterException) as error:
            if isinstance(error, RedisClusterException) or isinstance(self._open, redis.Redis):
                self.close()
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> RedisDown:
        text = str(error).replace(self._secret, "***") if self._secret else str(error)
        match error:
            case redis.OutOfMemoryError():
                return RedisRefuses(
                    "Redis is out of memory: raise its maxmemory, or write less with a smaller "
                    "STREAMGCN_TOP_K or a REDIS_TTL_SECONDS",
                    "OOM",
                )
            case redis.ReadOnlyError():
                return RedisRefuses(
                    "Redis is a read-only replica: name its primary in REDIS_URL", "READONLY"
                )
            case redis.AuthenticationError() | AuthenticationWrongNumberOfArgsError():
                return RedisRefuses(
                    "Redis refuses the user and password that REDIS_URL gives or lacks: correct it",
                    "NOAUTH",
                )
            case NoPermissionError():
                return RedisRefuses(
                    "Redis denies its user a command: grant "
                    f"~{self._prefix}:* +@read +@write +@transaction +info ({text})",
                    "NOPERM",
                )
            case redis.ConnectionError() | redis.TimeoutError() | RedisClusterException():
                return RedisDown(f"Redis does not answer: {text}")
            case _:
                code = getattr(error, "status_code", None) or text.partition(" ")[0]
                return RedisRefuses(f"Redis refuses: {text}", code)


def _connect(url: str) -> Client:
    # A connection that Redis closed meanwhile is made anew once; more patience is the caller's.
    node = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **OPTIONS)
    try:
        cluster = node.info("cluster").get("cluster_enabled")
    except redis.RedisError:
        node.close()
        raise
    if not cluster:
        return node
    node.close()
    return redis.RedisCluster.from_url(url, retry=Retry(NoBackoff(), 1), **OPTIONS)


def _primaries(client: Client) -> list[redis.Redis]:
    if isinstance(client, redis.RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def _raise_first(results: Iterable[object]) -> None:
    """Raise the first error of a pipeline's answers; redis-py's own way adds the command to it."""
    for result in results:
        if isinstance(result, Exception):
            raise result


def _literal(prefix: str) -> str:
    """The pattern that matches the prefix alone."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix)
