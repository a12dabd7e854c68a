"""Commands on the client, and what the client's answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import redis

from serving.redis.connect import Client

BLOCK = 256  # values a command or a pipeline: half a megabyte of lists of 50 items
T = TypeVar("T")


def encoded(key: str) -> bytes:
    """The key's bytes; what was no UTF-8 in an argument is itself again."""
    return key.encode(errors="surrogateescape")


def run(client: Client, *command: str | bytes) -> Any:
    """Redis's answer to one command."""
    execute: Callable[..., Any] = client.execute_command
    return execute(*command)


def run_together(client: Client, commands: Sequence[Sequence[bytes]]) -> bool:
    """Run commands, BLOCK of them together; raises the first error, and runs no further block.

    redis-py's own way adds the command to the error.
    """
    for answer in answers(client, commands):
        if isinstance(answer, Exception):
            raise answer
    return True


def answers(client: Client, commands: Sequence[Sequence[bytes]]) -> Iterator[Any]:
    """What Redis answers to commands, of which BLOCK are run together; errors are answers too."""
    for begin in range(0, len(commands), BLOCK):
        with client.pipeline(transaction=False) as pipe:
            for command in commands[begin : begin + BLOCK]:
                pipe.execute_command(command[0].decode(), *command[1:])
            found: list[Any] = pipe.execute(raise_on_error=False)
        yield from found


def unless_wrong_type(act: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """What `act` returns; what `otherwise` returns where another program's value is in the way."""
    try:
        return act()
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
    return otherwise()


def is_wrong_type(error: Exception) -> bool:
    """Whether another program's value is in the way."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


def address(server: redis.Redis) -> str:
    """The address, by which the servers of a Cluster are told apart."""
    arguments = server.connection_pool.connection_kwargs
    return f"{arguments.get('host')}:{arguments.get('port')}"


def text(key: bytes) -> str | None:
    """The key as text; None if it is not UTF-8, so that another program has written it."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def pattern(start: bytes) -> bytes:
    """The pattern of all keys that begin so."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", start) + b"*"
