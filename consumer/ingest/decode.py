"""Kafka messages -> rows of the edge store, a whole poll at once, and what is rejected of them.

One decoder call for a stretch of JSON messages and columns instead of events: a few times faster
than message by message. Where a stretch holds anything unusual, it is decoded message by message.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.store import SCHEMA
from consumer.event import arrow as bulk
from consumer.event.json import (
    FIRST_MS,
    FORGET,
    ID_BYTES,
    LARGEST,
    TYPE_BYTES,
    Event,
    EventError,
    Wire,
    decode,
    last_ms,
)
from consumer.kafka.client import Message

STRETCH = 2_000  # JSON messages a decoder call
MESSAGE_BYTES = 10 * 1024 * 1024
# Stands between the messages of a stretch. No sender can know it, so each time it is found at the
# top level is the end of one message, however the messages themselves may be cut or joined.
_MARK = secrets.randbits(53)
_JOIN = b",%d," % _MARK
_decoder = msgspec.json.Decoder(list[Wire | int])


class Rejected(NamedTuple):
    """A message that is no event, or one row of a bulk message; `value` is the part rejected."""

    message: Message
    reason: str
    value: bytes | None
    row: int | None = None


class Position(NamedTuple):
    """Of an event in a partition: the message's offset, and its number from 0 in the message."""

    offset: int
    row: int


def rows(messages: Sequence[Message]) -> tuple[pa.Table, list[Rejected]]:
    """Rows of SCHEMA, in the order of the messages, and the rejected ones.

    A row of type `forget` has no item_id; the store does not take it as it is.
    """
    tables: list[pa.Table] = []
    rejected: list[Rejected] = []
    begin = 0
    for at, message in enumerate(messages):
        if message.headers and bulk.is_bulk(message.headers):
            tables += _json(messages[begin:at], rejected)
            tables += _bulk(message, rejected)
            begin = at + 1
    tables += _json(messages[begin:], rejected)
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table(), rejected


def events(table: pa.Table) -> Iterator[tuple[Event, int, Position]]:
    """Rows of SCHEMA as events, each with its Kafka partition and its place there."""
    milliseconds = pc.divide(table["timestamp"].cast(pa.int64()), 1000)
    names = ("user_id", "item_id", "interaction", "type", "kafka_partition", "kafka_offset")
    columns = [table[name].to_pylist() for name in names]
    message, row = (-1, -1), 0
    for user, item, interaction, kind, partition, offset, ms in zip(
        *columns, milliseconds.to_pylist(), strict=True
    ):
        row = row + 1 if message == (partition, offset) else 0
        message = partition, offset
        yield Event(user, item, interaction, ms, kind), partition, Position(offset, row)


def _json(messages: Sequence[Message], rejected: list[Rejected]) -> Iterator[pa.Table]:
    for begin in range(0, len(messages), STRETCH):
        stretch = messages[begin : begin + STRETCH]
        table = _at_once(stretch)
        yield _one_by_one(stretch, rejected) if table is None else table


def _at_once(messages: Sequence[Message]) -> pa.Table | None:
    """The rows of messages with a JSON object each; None if any of them is anything else."""
    n = len(messages)
    try:
        joined = b"[%b]" % _JOIN.join([message.value for message in messages])  # type: ignore[misc]
        found: list[Any] = _decoder.decode(joined)
        wires = found[::2]
        whole = len(found) == 2 * n - 1 and found[1::2].count(_MARK) == n - 1
        if not whole or len(joined) > MESSAGE_BYTES:
            return None
        users = _strings([wire.user_id for wire in wires])
        items = _strings([wire.item_id for wire in wires])
        types = pa.array([wire.type for wire in wires], pa.string())
        interactions = np.array([wire.interaction for wire in wires])
        times = _times([wire.timestamp for wire in wires], messages)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # msgspec's and pyarrow's errors of a value are ValueErrors or TypeErrors
    usual = (
        _within(users, 1, ID_BYTES)
        and _within(items, 1, ID_BYTES)
        and _within(types, 0, TYPE_BYTES)
        and not pc.any(pc.equal(types, FORGET)).as_py()
        and np.abs(interactions).max() <= LARGEST
        and times.min() >= FIRST_MS
        and times.max() <= last_ms()
    )
    return _table(users, items, interactions, types, times, messages) if usual else None


def _one_by_one(messages: Sequence[Message], rejected: list[Rejected]) -> pa.Table:
    found: list[Event] = []
    source: list[Message] = []
    for message in messages:
        try:
            if len(message.value or b"") > MESSAGE_BYTES:
                raise EventError(f"the message is longer than {MESSAGE_BYTES} bytes; split it")
            decoded = decode(message.value, message.timestamp)
        except EventError as error:
            rejected.append(Rejected(message, str(error), message.value))
            continue
        found += decoded
        source += [message] * len(decoded)
    return _table(
        pa.array([event.user_id for event in found], pa.string()),
        pa.array([event.item_id for event in found], pa.string()),
        np.array([event.interaction for event in found], np.float64),
        pa.array([event.type for event in found], pa.string()),
        np.array([event.timestamp for event in found], np.int64),
        source,
    )


def _bulk(message: Message, rejected: list[Rejected]) -> Iterator[pa.Table]:
    value = message.value or b""
    try:
        if len(value) > MESSAGE_BYTES:
            raise EventError(f"the message is longer than {MESSAGE_BYTES} bytes; split it")
        table, bad = bulk.decode(value, message.timestamp)
    except EventError as error:
        rejected.append(Rejected(message, str(error), message.value))
        return
    for row in bad:
        reason = f"row {row.number} of the message: {row.reason}"
        rejected.append(Rejected(message, reason, row.value, row.number))
    n = len(table)
    yield pa.table(
        [
            table["user_id"],
            table["item_id"],
            table["interaction"],
            table["type"],
            _microseconds(table["timestamp"].to_numpy()),
            pa.array(np.full(n, message.partition, np.int32)),
            pa.array(np.full(n, message.offset, np.int64)),
        ],
        schema=SCHEMA,
    )


def _table(
    users: pa.Array,
    items: pa.Array,
    interactions: npt.NDArray[np.float64],
    types: pa.Array,
    times: npt.NDArray[np.int64],
    messages: Sequence[Message],
) -> pa.Table:
    """Rows of SCHEMA; `messages` has each row's message."""
    columns = [
        users,
        items,
        pa.array(interactions),
        types,
        _microseconds(times),
        pa.array([message.partition for message in messages], pa.int32()),
        pa.array([message.offset for message in messages], pa.int64()),
    ]
    return pa.table(columns, schema=SCHEMA)


def _strings(values: list[str | int | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([None if v is None else str(v) for v in values], pa.string())


def _times(values: list[Any], messages: Sequence[Message]) -> npt.NDArray[np.int64]:
    """Epoch milliseconds, int64 [messages]; the message's own where the event has none."""
    times = pa.array(values)
    if pa.types.is_timestamp(times.type):
        if not {datetime, type(None)}.issuperset(map(type, values)):
            raise TypeError("pyarrow takes numbers among datetimes for microseconds")
        times = pc.floor_temporal(times, unit="millisecond").cast(pa.timestamp("ms", "UTC"))
    milliseconds = times.cast(pa.int64(), safe=pa.types.is_timestamp(times.type))
    if times.null_count:
        own = pa.array([message.timestamp for message in messages], pa.int64())
        milliseconds = pc.coalesce(milliseconds, own)
    made: npt.NDArray[np.int64] = milliseconds.to_numpy()
    return made


def _within(values: pa.Array, least: int, most: int) -> bool:
    """Whether all are there and of `least` to `most` bytes."""
    bytes_of = pc.min_max(pc.binary_length(values))
    return (
        not values.null_count
        and bytes_of["min"].as_py() >= least
        and bytes_of["max"].as_py() <= most
    )


def _microseconds(milliseconds: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(milliseconds * 1000).cast(SCHEMA.field("timestamp").type)
