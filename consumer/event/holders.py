"""Which users a message is about, also one that is no valid event, and the message without some."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from consumer.event import arrow
from consumer.event.errors import EventError


def users_in(value: bytes, headers: Any) -> set[str]:
    """The users that a message names: those of a JSON object, an array, or an Arrow stream.

    Raises:
        EventError: the message cannot be read so far; no consumer can make an event of it either.
    """
    if arrow.is_bulk(headers):
        return set(_ids(arrow.read(value)).to_pylist()) - {None}
    return {user for event in _events(value) if (user := _user(event)) is not None}


def without(value: bytes, headers: Any, users: Collection[str]) -> bytes | None:
    """The message without the events of `users`; None if no other event is in it.

    Raises:
        EventError: as `users_in`.
    """
    if arrow.is_bulk(headers):
        table = arrow.read(value)
        left = table.filter(pc.invert(pc.is_in(_ids(table), pa.array(list(users), pa.string()))))
        return arrow.encode(left) if len(left) else None
    kept = [event for event in _events(value) if _user(event) not in users]
    return json.dumps(kept).encode() if kept else None


def _events(value: bytes) -> list[Any]:
    try:
        found = json.loads(value)  # takes NaN and Infinity too
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from None
    return found if isinstance(found, list) else [found]


def _user(event: Any) -> str | None:
    user = event.get("user_id") if isinstance(event, dict) else None
    # An escape in JSON can stand for half a character.
    return None if user is None else str(user).encode(errors="replace").decode()


def _ids(table: pa.Table) -> pa.ChunkedArray:
    return table["user_id"].cast(pa.string())
