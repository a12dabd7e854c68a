"""The commands that are run, each with a second way where Redis does not allow it.

What it must allow is GET and SET; `losses` says what is lost without another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import redis

from serving.redis.connect import Client, Connection
from serving.redis.contract import foreign
from serving.redis.errors import forbidden
from serving.redis.server import Server, asked
from serving.redis.wire import (
    BLOCK,
    address,
    answers,
    encoded,
    is_wrong_type,
    pattern,
    run,
    run_together,
    text,
    unless_wrong_type,
)

PAGE = 2_000  # keys that Redis looks at in one SCAN, which takes it a few milliseconds
LOSSES = {
    "MSET": "lists are written by SET, which is slower",
    "DEL": "lists are deleted by a SET that expires at once",
    "SCAN": "lists of users who were forgotten while no serving process ran stay until they are "
    "deleted by hand",
    "INFO": "serving cannot tell that Redis was restarted from an old dump, or evicts lists",
    "HSET": "readers have no description of the live model, and each start of serving publishes "
    "all lists again",
    "HMGET": "each start of serving publishes all lists again",
}
T = TypeVar("T")


class Cursor(NamedTuple):
    """How far a walk over all keys is: in the keys of this server, and behind all before it."""

    server: str
    number: int  # which the server gave; 0 at its first key


class Commands:
    """Of one connection. Keys are text, values bytes; all raise RedisDown."""

    def __init__(self, url: str, prefix: str) -> None:
        self._connection = Connection(url, prefix)
        self._refused: set[str] = set()  # by this server
        self._told: set[str] = set()  # of all that were ever refused
        self._untold: list[str] = []

    def losses(self) -> list[str]:
        """Sentences, each once: a command that Redis refuses, and what is lost without it."""
        untold, self._untold = self._untold, []
        return [f"Redis does not let its user run {each}: {LOSSES[each]}." for each in untold]

    def get(self, key: str) -> bytes | None:
        """A key's value, None where there is none; raises ForeignValue if it is no string."""

        def get(client: Client) -> bytes | None:
            found: bytes | None = run(client, "GET", encoded(key))
            return found

        def refuse() -> bytes | None:
            raise foreign(key, "it is no string")

        return self._call(lambda client: unless_wrong_type(partial(get, client), refuse))

    def set_or_find(self, key: str, choose: Callable[[bytes | None], bytes]) -> bytes:
        """What is at the key, after what `choose` makes of it was written where nothing was.

        A write in any case, so it fails where writes are refused.
        """

        def act(client: Client) -> bytes:
            def look() -> bytes | None:
                found: bytes | None = run(client, "GET", key)
                return found

            def replace() -> bytes | None:
                run(client, "SET", key, choose(None))
                return look()

            before = unless_wrong_type(look, replace)
            made = choose(before)
            run(client, "SET", key, made, "NX")
            return before or look() or made

        return self._call(act)

    def put(self, keys: Sequence[str], values: Sequence[bytes], ttl: int | None) -> None:
        """Write values, which expire after `ttl` seconds."""
        expiry = () if ttl is None else (b"EX", b"%d" % ttl)
        pairs = list(zip(map(encoded, keys), values, strict=True))

        def put(client: Client) -> None:
            for begin in range(0, len(pairs), BLOCK):
                block = pairs[begin : begin + BLOCK]
                if ttl is None and isinstance(client, redis.Redis):
                    whole = chain.from_iterable(block)
                    if self._may("MSET", partial(run, client, "MSET", *whole)):
                        continue
                run_together(client, [(b"SET", key, value, *expiry) for key, value in block])

        self._call(put)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete keys."""
        coded = list(map(encoded, keys))

        def delete(client: Client) -> None:
            if self._may("DEL", lambda: run_together(client, [(b"DEL", key) for key in coded])):
                return
            run_together(client, [(b"SET", key, b"", b"PX", b"1") for key in coded])

        if coded:
            self._call(delete)

    def put_fields(self, key: str, fields: Mapping[str, str]) -> None:
        """Write fields of a hash, all at once."""

        def put(client: Client) -> bool:
            run(client, "HSET", key, *chain.from_iterable(fields.items()))
            return True

        def replace(client: Client) -> bool:
            run(client, "DEL", key)
            return put(client)

        def act(client: Client) -> bool:
            return unless_wrong_type(partial(put, client), partial(replace, client))

        if fields:
            self._call(lambda client: self._may("HSET", partial(act, client)))

    def fields(self, key: str, names: Sequence[str]) -> dict[str, str]:
        """Those of the fields that a hash has; none if it is no hash."""

        def get(client: Client) -> list[bytes | None]:
            found: list[bytes | None] = run(client, "HMGET", key, *names)
            return found

        def act(client: Client) -> list[bytes | None]:
            return unless_wrong_type(partial(get, client), list)

        if not names:
            return {}
        values = self._call(lambda client: self._may("HMGET", partial(act, client))) or ()
        return {
            name: value.decode(errors="replace")
            for name, value in zip(names, values, strict=False)
            if value is not None
        }

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys; None where there is none, or no string."""
        coded = [(b"GET", encoded(key)) for key in keys]

        def found(answer: Any) -> bytes | None:
            if isinstance(answer, Exception):
                if is_wrong_type(answer):
                    return None
                raise answer
            value: bytes | None = answer
            return value

        def get(client: Client) -> list[bytes | None]:
            return [found(answer) for answer in answers(client, coded)]

        return self._call(get) if coded else []

    def page(self, start: str, cursor: Cursor | None) -> tuple[list[str], Cursor | None]:
        """One step of a walk over all keys, in all of a Cluster's primaries.

        Args:
            start: only keys that begin with it are of interest.
            cursor: where the last step has ended, None at the beginning.

        Returns:
            What follows `start` in some keys, and the cursor to go on at; None at the end.
        """
        begin = encoded(start)

        def look(client: Client) -> tuple[list[Any], Cursor | None]:
            servers = {address(node): node for node in self._connection.nodes(client)}
            left = sorted(name for name in servers if not cursor or name >= cursor.server)
            if not left:
                return [], None
            number = cursor.number if cursor and cursor.server == left[0] else 0
            number, keys = servers[left[0]].scan(number, pattern(begin), PAGE)
            if number:
                return [*keys], Cursor(left[0], number)
            return [*keys], Cursor(left[1], 0) if len(left) > 1 else None

        looked = self._call(lambda client: self._may("SCAN", partial(look, client)))
        keys, after = looked or ([], None)
        ends = (text(key[len(begin) :]) for key in keys)
        return [end for end in ends if end is not None], after

    def server(self) -> Server | None:
        """What Redis tells of itself; None if it does not."""

        def ask(client: Client) -> Server:
            return asked(self._connection.nodes(client), self._connection.database)

        return self._call(lambda client: self._may("INFO", partial(ask, client)))

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        self._connection.close()

    def _call(self, act: Callable[[Client], T]) -> T:
        try:
            return self._connection.call(act)
        except Exception:
            self._refused.clear()  # it may be another server that answers next
            raise

    def _may(self, command: str, act: Callable[[], T]) -> T | None:
        """What `act` returns; None where Redis does not allow the command."""
        if command in self._refused:
            return None
        try:
            return act()
        except redis.ResponseError as error:
            if forbidden(error) != command:
                raise
        self._refused.add(command)
        if command not in self._told:
            self._told.add(command)
            self._untold.append(command)
        return None
