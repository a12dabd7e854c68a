"""The event: bytes of a Kafka message <-> Event, or EventError with a reason.

A message is a JSON object, or an array of them; DESIGN.md has the fields and their limits.
"""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec

from process.errors import StreamGCNError

ID_BYTES = 256
TYPE_BYTES = 64
LARGEST = 1e12  # interaction: what is made of such numbers is still finite in float32
REMOVE = "remove"
FORGET = "forget"  # needs no item_id
FIRST_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
NUMBER = f"send a number from -{LARGEST:g} to {LARGEST:g}"  # what is said of a wrong interaction
_DAY_MS = 86_400_000


class EventError(StreamGCNError):
    """A message is not a valid event; the text says why and what would be."""


class Event(NamedTuple):
    """One interaction of a user with an item."""

    user_id: str
    item_id: str  # empty if type is `forget`
    interaction: float
    timestamp: int  # epoch milliseconds
    type: str


class Wire(msgspec.Struct, gc=False):
    """The JSON object as clients send it."""

    user_id: str | int
    item_id: str | int | None = None
    interaction: float = 1.0
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | int | float | None = None
    type: str = "interaction"


_decoder = msgspec.json.Decoder(Wire | list[Wire])
_encoder = msgspec.json.Encoder()


def decode(value: bytes | None, message_ms: int) -> list[Event]:
    """Events of a message.

    Args:
        value: the message's value, UTF-8 JSON.
        message_ms: the Kafka message's own timestamp, epoch milliseconds, for events without one.

    Raises:
        EventError: the message as a whole is rejected, for its first wrong event.
    """
    if not value:
        raise EventError("the message is empty; send a JSON object with user_id and item_id")
    try:
        wire = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(_explain(value, error)) from None
    if isinstance(wire, Wire):
        return [_event(wire, message_ms)]
    return [_event(each, message_ms) for each in wire]


def encode(event: Event) -> bytes:
    """The JSON object of one event; `decode` gives the event back."""
    return _encoder.encode(event._asdict())


def last_ms() -> int:
    """The newest timestamp that is taken now: a day ahead, for clocks that differ."""
    return int(time.time() * 1000) + _DAY_MS


def _event(wire: Wire, message_ms: int) -> Event:
    if not abs(wire.interaction) <= LARGEST:
        raise EventError(f"interaction is {wire.interaction}; {NUMBER}")
    if len(wire.type) > TYPE_BYTES or len(wire.type.encode()) > TYPE_BYTES:
        raise EventError(f"type is longer than {TYPE_BYTES} bytes: {wire.type[:20]!r}...")
    if wire.item_id is None and wire.type != FORGET:
        raise EventError("item_id is missing; send a string or an integer")
    item = "" if wire.item_id is None or wire.type == FORGET else _id("item_id", wire.item_id)
    return Event(
        _id("user_id", wire.user_id),
        item,
        wire.interaction,
        _milliseconds(wire.timestamp, message_ms),
        wire.type,
    )


def _id(field: str, value: str | int) -> str:
    text = value if isinstance(value, str) else str(value)
    # A character has up to 4 bytes, so short strings need no encoding to be measured.
    if not text:
        raise EventError(f"{field} is empty; send 1 to {ID_BYTES} bytes")
    if len(text) * 4 > ID_BYTES and len(text.encode()) > ID_BYTES:
        raise EventError(f"{field} is longer than {ID_BYTES} bytes: {text[:20]!r}...")
    return text


def _milliseconds(value: datetime | int | float | None, message_ms: int) -> int:
    if value is None:
        ms = message_ms
    elif isinstance(value, datetime):
        ms = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    elif math.isfinite(value):
        ms = int(value)
    else:
        raise EventError(f"timestamp is {value}; send RFC 3339 or epoch milliseconds")
    if not FIRST_MS <= ms <= last_ms():
        raise EventError(
            f"timestamp {message_ms if value is None else value} is more than a day ahead or "
            "before the year 1; send RFC 3339 or epoch milliseconds"
        )
    return ms


def _explain(value: bytes, error: Exception) -> str:
    """A reason that names the value where the strict decoder names only a position."""
    reason = str(error)
    if isinstance(error, msgspec.ValidationError):
        return reason
    try:
        loose = json.loads(value)  # takes NaN and Infinity, which JSON has not
    except (ValueError, RecursionError):
        return f"not JSON: {reason}"
    for each in loose if isinstance(loose, list) else [loose]:
        number = each.get("interaction") if isinstance(each, dict) else None
        if isinstance(number, float) and not math.isfinite(number):
            return f"interaction is {number}; {NUMBER}"
    return f"not JSON: {reason}"
