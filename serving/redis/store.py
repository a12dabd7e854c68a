"""Writes and reads the contract's keys. A value is replaced whole, never seen in part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from serving.redis.commands import Commands, Cursor
from serving.redis.contract import MODEL, ForeignValue, Recommendations, read
from serving.redis.life import Life
from serving.redis.server import Server

SHARE_SECONDS = 60  # for which what a process tells of its users stays if nobody writes it again


class Store:
    """The contract in one Redis or Redis Cluster; all raise RedisDown."""

    def __init__(self, url: str, prefix: str, ttl_seconds: int | None = None) -> None:
        """Nothing is connected before the first call.

        Args:
            url: of a Redis or of any node of a Redis Cluster.
            prefix: of every key.
            ttl_seconds: after which lists of users and of similar items expire; None: never.

        Raises:
            RedisMisconfigured: `url` is not a Redis URL, or names a file that is of no use.
        """
        self._prefix, self._ttl = prefix, ttl_seconds
        self._commands = Commands(url, prefix)
        self._life = Life()

    def put_users(self, users: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the lists of users: JSON of Recommendations, in the order of `users`."""
        self._commands.put([self._user(user) for user in users], values, self._ttl)

    def put_neighbors(self, items: Sequence[str], values: Sequence[bytes]) -> None:
        """Write the similar items of items: JSON of Recommendations, in the order of `items`."""
        self._commands.put([self._neighbors(item) for item in items], values, self._ttl)

    def put_popular(self, value: bytes) -> None:
        """Write the list for users without one: JSON of Recommendations."""
        self._commands.put([self._key("popular")], [value], None)

    def put_model(self, fields: Mapping[str, str | int | float]) -> None:
        """Describe the live model: all of MODEL at once."""
        self._commands.put_fields(self._key("model"), {k: str(v) for k, v in fields.items()})

    def put_published(self, partitions: Iterable[int], edition: str) -> None:
        """Note of which edition the lists of the users of these Kafka partitions are."""
        self._commands.put_fields(self._key("published"), {str(p): edition for p in partitions})

    def put_share(self, partitions: Iterable[int], value: bytes) -> None:
        """Write what this process, which has these partitions, tells other processes."""
        first, *others = sorted(partitions)
        keys = [self._share(partition) for partition in (*others, first)]
        self._commands.put(keys, [*[b""] * len(others), value], SHARE_SECONDS)

    def shares(self, partitions: Iterable[int]) -> dict[int, bytes]:
        """What the processes that have these partitions have told, as they wrote it."""
        numbers = list(partitions)
        values = self._commands.get_many([self._share(partition) for partition in numbers])
        return {p: value for p, value in zip(numbers, values, strict=True) if value}

    def delete_users(self, users: Iterable[str]) -> None:
        """Delete the lists of users."""
        self._commands.delete([self._user(user) for user in users])

    def users_after(self, cursor: Cursor | None) -> tuple[list[str], Cursor | None]:
        """Some users who have a list, on a walk over the keys of all lists.

        Args:
            cursor: where the last call has ended, None at the beginning.

        Returns:
            The users, and the cursor to go on at; None at the end.
        """
        return self._commands.page(self._user(""), cursor)

    def event_times(self, users: Sequence[str]) -> list[int | None]:
        """Epoch milliseconds of each user's newest event that the user's list knows.

        None where there is no list, or what serving did not write.
        """
        return [found.event_at if found else None for found in self._lists(users)]

    def update_times(self, users: Sequence[str]) -> list[int | None]:
        """Epoch milliseconds of when each user's list was written; None as in `event_times`."""
        return [found.updated_at if found else None for found in self._lists(users)]

    def generation(self) -> str:
        """A word that is the same as long as Redis has kept all that was written to it, but for
        what it has evicted.

        Another one means that it was restarted or flushed, or that a replica took over, and that
        lists may be lost. Asking is a write, so it fails where writes are refused.
        """

        def choose(found: bytes | None) -> bytes:
            return self._life.word_after(found, self._commands.server())

        return self._life.generation(self._commands.set_or_find(self._key("generation"), choose))

    @property
    def server(self) -> Server | None:
        """What Redis told of itself at the last `generation`; None if it does not."""
        return self._life.server

    def ask_server(self) -> Server | None:
        """What Redis tells of itself; None if it does not."""
        return self._commands.server()

    def losses(self) -> list[str]:
        """Sentences, each once: a command that Redis refuses, and what is lost without it."""
        return self._commands.losses()

    def published(self, partitions: Collection[int]) -> dict[int, str]:
        """The edition of the lists of each of these partitions, as far as Redis knows it."""
        found = self._commands.fields(self._key("published"), [str(p) for p in partitions])
        return {int(partition): edition for partition, edition in found.items()}

    def user(self, user: str) -> Recommendations | None:
        """The list of a user, None if there is none; raises ForeignValue as all that read lists."""
        return self._get(self._user(user))

    def has_user(self, user: str) -> bool:
        """Whether there is anything in the place of the user's list."""
        try:
            return self._get(self._user(user)) is not None
        except ForeignValue:
            return True

    def popular(self) -> Recommendations | None:
        """The list for users without one, None before the first event."""
        return self._get(self._key("popular"))

    def neighbors(self, item: str) -> Recommendations | None:
        """Items similar to an item, None if it is not in the model."""
        return self._get(self._neighbors(item))

    def model(self) -> dict[str, str]:
        """The description of the live model, empty if there is none."""
        return self._commands.fields(self._key("model"), MODEL)

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        self._commands.close()

    def _get(self, key: str) -> Recommendations | None:
        value = self._commands.get(key)
        return read(key, value) if value else None  # empty is what is being deleted

    def _lists(self, users: Sequence[str]) -> list[Recommendations | None]:
        """The list of each user; None where there is none, or what serving did not write."""
        keys = [self._user(user) for user in users]
        values = zip(keys, self._commands.get_many(keys), strict=True)
        return [_read_ours(key, value) for key, value in values]

    def _user(self, user: str) -> str:
        return self._key(f"rec:{user}")

    def _neighbors(self, item: str) -> str:
        return self._key(f"neighbors:{item}")

    def _share(self, partition: int) -> str:
        return self._key(f"share:{partition}")

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"


def _read_ours(key: str, value: bytes | None) -> Recommendations | None:
    if not value:
        return None
    try:
        return read(key, value)
    except ForeignValue:
        return None
