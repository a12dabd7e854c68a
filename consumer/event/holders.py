"""Which users a message is about, also one that is no valid event, and the message without some."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from consumer.event import arrow
from consumer.event.json import EventError


def users_in(value: bytes, headers: Any) -> set[str]:
    """The users that a message names: those of a JSON object, an array, or an Arrow stream.

    Raises:
        EventError: the message cannot be read so far.
    """
    if arrow.is_bulk(headers):
        table = _table(value)
        return set(_ids(table).to_pylist()) - {None}
    found = _json(value)
    return {str(event["user_id"]) for event in _events(found) if "user_id" in event}


def without(value: bytes, headers: Any, users: Collection[str]) -> bytes | None:
    """The message without the events of `users`; None if no other event is in it.

    Raises:
        EventError: as `users_in`.
    """
    if arrow.is_bulk(headers):
        table = _table(value)
        left = table.filter(pc.invert(pc.is_in(_ids(table), pa.array(list(users), pa.string()))))
        return arrow.encode(left) if len(left) else None
    found = _json(value)
    if isinstance(found, dict):
        return None if _is_of(found, users) else value
    kept = [event for event in found if not _is_of(event, users)]
    return json.dumps(kept).encode() if kept else None


def _is_of(event: Any, users: Collection[str]) -> bool:
    return isinstance(event, dict) and str(event.get("user_id")) in users


def _events(found: Any) -> list[dict[str, Any]]:
    events = found if isinstance(found, list) else [found]
    return [event for event in events if isinstance(event, dict)]


def _json(value: bytes) -> Any:
    try:
        found = json.loads(value)  # takes NaN and Infinity too
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from None
    if not isinstance(found, dict | list):
        raise EventError("neither a JSON object nor an array")
    return found


def _table(value: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(value) as reader:
            return reader.read_all()
    except Exception as error:  # of what foreign bytes can do to a decoder there is no list
        raise EventError(f"not an Arrow IPC stream: {error}") from None


def _ids(table: pa.Table) -> pa.ChunkedArray:
    try:
        return table["user_id"].cast(pa.string())
    except (KeyError, pa.ArrowException) as error:
        raise EventError(f"no column of users: {error}") from None
