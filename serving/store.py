"""The Redis contract; the only file that imports redis.

<prefix>:rec:<user_id>         a user's list        STRING, JSON of Recommendations
<prefix>:popular               for everyone else    STRING, the same
<prefix>:neighbors:<item_id>   similar items        STRING, the same
<prefix>:model                 the live model       HASH
<prefix>:published             what is written      HASH, of use to serving alone
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Literal

import msgspec
import redis

from consumer.erasure import digest
from consumer.errors import StreamGCNError

BLOCK = 256  # values a command or a pipeline: half a megabyte of lists of 50 items


class RedisDown(StreamGCNError):
    """Redis does not answer or refuses; the text says which."""


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

    def __init__(self, url: str, prefix: str) -> None:
        """Nothing is connected before the first call.

        Raises:
            RedisDown: `url` is not a Redis URL.
        """
        try:
            self._redis = redis.Redis.from_url(
                url, socket_connect_timeout=2, socket_timeout=10, decode_responses=True
            )
        except ValueError as error:
            raise RedisDown(f"REDIS_URL is refused: {error}; redis://host:6379/0 is one") from None
        self._prefix = prefix

    def put_users(self, users: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the lists of users: JSON of Recommendations, in the order of `users`."""
        self._put([f"{self._prefix}:rec:{user}" for user in users], values)

    def delete_users(self, users: Iterable[str]) -> None:
        """Delete the lists of users."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for user in users:
                    pipe.delete(f"{self._prefix}:rec:{user}")
                pipe.execute()
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def delete_digests(self, digests: Collection[str]) -> None:
        """Delete the lists of users by the digests of their ids; looks at every list's key."""
        start = len(f"{self._prefix}:rec:")
        try:
            keys = self._redis.scan_iter(f"{_literal(self._prefix)}:rec:*", count=1_000)
            self.delete_users([key[start:] for key in keys if digest(key[start:]) in digests])
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def put_neighbors(self, items: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the similar items of items: JSON of Recommendations, in the order of `items`."""
        self._put([f"{self._prefix}:neighbors:{item}" for item in items], values)

    def put_popular(self, value: Recommendations) -> None:
        """Write the list for users without one."""
        self._put([f"{self._prefix}:popular"], [msgspec.json.encode(value)])

    def put_model(self, fields: Mapping[str, str | int | float]) -> None:
        """Replace the description of the live model."""
        key = f"{self._prefix}:model"
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                pipe.hset(key, mapping={name: str(value) for name, value in fields.items()})
                pipe.execute()
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def put_published(self, partitions: Iterable[int], version: str) -> None:
        """Note that all lists of the users of these Kafka partitions are of this snapshot."""
        try:
            for partition in partitions:
                self._redis.hset(f"{self._prefix}:published", str(partition), version)
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def delete_published(self, partitions: Collection[int]) -> None:
        """Take the note back, so that the lists are written again."""
        if not partitions:
            return
        try:
            self._redis.hdel(f"{self._prefix}:published", *map(str, partitions))
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def published(self) -> dict[int, str]:
        """Partition -> snapshot of its users' lists; what Redis has lost is missing."""
        try:
            fields = self._redis.hgetall(f"{self._prefix}:published")
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error
        return {int(partition): str(version) for partition, version in fields.items()}

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
        try:
            fields = self._redis.hgetall(f"{self._prefix}:model")
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error
        return {str(name): str(value) for name, value in fields.items()}

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _put(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        try:
            for begin in range(0, len(keys), BLOCK):
                pairs = zip(keys[begin : begin + BLOCK], values[begin : begin + BLOCK], strict=True)
                self._redis.execute_command("MSET", *chain.from_iterable(pairs))  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error

    def _get(self, key: str) -> Recommendations | None:
        try:
            value = self._redis.get(key)
        except redis.RedisError as error:
            raise RedisDown(str(error)) from error
        return None if value is None else msgspec.json.decode(value, type=Recommendations)


def _literal(prefix: str) -> str:
    """The pattern that matches the prefix alone."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix)
