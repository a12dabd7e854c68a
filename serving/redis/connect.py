"""Reaching Redis, or the Redis Cluster of which REDIS_URL names a node.

Nothing is asked for that: a node of a Cluster answers MOVED where a key is another node's, and then
the call is made again with the client of a Cluster. Every wait ends within seconds, so that a Redis
that hangs holds up neither the topic's reading nor the end of the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    RedisClusterException,
)
from redis.retry import Retry

from serving.redis.errors import RedisDown, RedisMisconfigured, connected, explained
from serving.redis.tls import cause_of_silence, check_files

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 3.0  # for a block of lists too
SILENCE_SECONDS = 60.0  # between two looks at why a server is silent, which cost time too
PROBES = 32  # keys; a node with half of a Cluster's slots answers so many once in 4 billion times
OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": ANSWER_SECONDS,
    "protocol": 2,  # the third begins with HELLO, which a user may not be allowed
    "driver_info": None,  # nor CLIENT
}
Client = redis.Redis | redis.RedisCluster
T = TypeVar("T")


class Connection:
    """A client that is made at the first call, and anew after an error."""

    def __init__(self, url: str, prefix: str) -> None:
        """Connects to nothing yet.

        Raises:
            RedisMisconfigured: `url` is no Redis URL, or a file that it names is missing or of no
                use.
        """
        self._url, self._prefix = url, prefix
        self._open: Client | None = None
        self._worked = self._probed = False
        self._silent_since = -float("inf")  # when a silent server was last looked into
        try:
            pool = redis.ConnectionPool.from_url(url)
            pool.make_connection()
        except (ValueError, TypeError, redis.RedisError):  # the text may hold a password's part
            raise RedisMisconfigured(
                "REDIS_URL is refused: redis://user:password@host:6379/0 is the form, with / ? # @ "
                "and % in a password as %2F %3F %23 %40 %25",
                "URL",
            ) from None
        self._arguments: dict[str, Any] = pool.connection_kwargs
        self._secret = str(self._arguments.get("password") or "")
        self.database = int(self._arguments.get("db") or 0)
        check_files(self._arguments)

    def call(self, act: Callable[[Client], T]) -> T:
        """What `act` returns of the client; it is called once more where it finds a Cluster.

        Raises:
            RedisDown: the next call finds all out anew, as the name may stand for another server
                by then: a replica that took over. A Cluster's client knows its other nodes and is
                kept as long as it reaches one.
        """
        try:
            try:
                made = act(self._client())
            except (AskError, ClusterCrossSlotError):  # MOVED is one of them
                if isinstance(self._open, redis.RedisCluster):
                    raise
                self._turn_to_cluster()
                made = act(self._client())
        except (redis.RedisError, RedisClusterException) as error:
            if isinstance(error, RedisClusterException) or isinstance(self._open, redis.Redis):
                self.close()
            raise self._explained(error) from None
        self._worked = True
        return made

    def nodes(self, client: Client) -> list[redis.Redis]:
        """The servers that hold the keys: the one, or a Cluster's primaries.

        Raises:
            MovedError: the client, which took it for one server, is in a Cluster.
        """
        if isinstance(client, redis.RedisCluster):
            return [client.get_redis_connection(node) for node in client.get_primaries()]
        if not self._probed:
            with client.pipeline(transaction=False) as pipe:
                for number in range(PROBES):
                    pipe.get(f"{self._prefix}:rec:{number}")
                for answer in pipe.execute(raise_on_error=False):
                    if isinstance(answer, AskError):
                        raise answer
            self._probed = True
        return [client]

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        client, self._open, self._probed = self._open, None, False
        if isinstance(client, redis.RedisCluster):
            client.disconnect_connection_pools()  # its own close leaves them open
        if client:
            client.close()

    def _client(self) -> Client:
        if self._open is None:
            self._open = redis.Redis.from_url(self._url, retry=_retry(), **OPTIONS)
        return self._open

    def _turn_to_cluster(self) -> None:
        self.close()
        self._open = redis.RedisCluster.from_url(self._url, retry=_retry(), **OPTIONS)

    def _explained(self, error: Exception) -> RedisDown:
        made = explained(error, self._secret, self._prefix)
        if self._worked or type(made) is not RedisDown or not connected(error):
            return made
        if time.monotonic() - self._silent_since < SILENCE_SECONDS:
            return made
        self._silent_since = time.monotonic()
        why = cause_of_silence(self._arguments, self._url.startswith("rediss:"))
        return RedisMisconfigured(why, "TLS") if why else made


def _retry() -> Retry:
    """Once more where Redis closed a connection meanwhile; more patience is the caller's."""
    return Retry(NoBackoff(), 1, (redis.ConnectionError,))
