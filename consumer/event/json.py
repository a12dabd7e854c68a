"""JSON events: bytes of a message <-> the events in it.

A message is a JSON object, or an array of them; README has the fields. Of a key that is there
twice the last one counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from consumer.event import times
from consumer.event.arrow_bounds import ROWS
from consumer.event.errors import SHOWN, EventError
from consumer.event.rules import FORGET, LARGEST, NUMBER, REMOVE
from process.text import visible

# What others take from here, though it is of the rules.
__all__ = ["FORGET", "LARGEST", "REMOVE", "Event", "Wire", "columns", "encode"]

EXPLAINED_BYTES = 64 * 1024  # of a message that is looked at again, for a better reason


class Event(NamedTuple):
    """One interaction of a user with an item."""

    user_id: str
    item_id: str  # if type is `forget`: empty, or rules.HERE
    interaction: float
    timestamp: int  # epoch milliseconds
    type: str


class Wire(msgspec.Struct, gc=False):
    """The JSON object as clients send it; what is null was not given."""

    user_id: str | int | None  # must be there, so that no array of empty objects fills memory
    item_id: str | int | None = None
    interaction: float | None = None
    timestamp: int | float | str | None = None
    type: str | None = None


_decoder = msgspec.json.Decoder(Wire | list[Wire])
_encoder = msgspec.json.Encoder()


def parse(value: bytes | None) -> list[Wire]:
    """The events of a message, not yet checked by the rules.

    Raises:
        EventError: the message is no JSON object or array of objects, or a field in it is of a
            type that cannot be right.
    """
    if not value:
        raise EventError("the message is empty; send a JSON object with user_id and item_id")
    try:
        found = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(_explain(value, error)) from None
    events = [found] if isinstance(found, Wire) else found
    if len(events) > ROWS:
        raise EventError(f"the message has more than {ROWS} events; send fewer in each")
    return events


def columns(events: Sequence[Wire]) -> pa.Table:
    """The events as the columns that the rules take."""
    return pa.table(
        {
            "user_id": _strings([event.user_id for event in events]),
            "item_id": _strings([event.item_id for event in events]),
            "interaction": pa.array([event.interaction for event in events], pa.float64()),
            "timestamp": _times([event.timestamp for event in events]),
            "type": pa.array([event.type for event in events], pa.string()),
        }
    )


def encode(event: Event) -> bytes:
    """The JSON object of one event."""
    return _encoder.encode(event._asdict())


def _strings(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:  # there are integers
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def _times(values: list[Any]) -> pa.Array:
    if len({type(value) for value in values if value is not None}) <= 1:
        with suppress(OverflowError):  # of integers from 2^63 on
            return pa.array(values)
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def _explain(value: bytes, error: Exception) -> str:
    """A reason that names the value where the strict decoder names only a position."""
    reason = visible(str(error), 200)
    loose = None
    if len(value) <= EXPLAINED_BYTES:
        with suppress(ValueError, RecursionError):
            loose = json.loads(value)  # takes NaN, Infinity and halves of surrogate pairs
    for each in loose if isinstance(loose, list) else [loose]:
        fields = each if isinstance(each, dict) else {}
        number, moment = fields.get("interaction"), fields.get("timestamp")
        if isinstance(number, int | float) and not _is_finite(number):
            return f"interaction is {visible(str(number), SHOWN)}; {NUMBER}"
        if isinstance(moment, float) and not _is_finite(moment):
            return times.why(moment)
        for name, text in fields.items():
            if isinstance(text, str) and not text.isascii() and _is_half(text):
                return f"{visible(name, SHOWN)} holds half a surrogate pair, which is no text"
    if isinstance(error, msgspec.ValidationError):
        return reason
    return f"not JSON: {reason}"


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _is_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
