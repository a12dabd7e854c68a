"""Kafka messages -> rows of the edge store, a whole poll at once, and what is rejected of them.

One decoder call for a stretch of JSON messages and columns instead of events: a few times faster
than message by message. Where a stretch holds anything unusual, it is decoded message by message.
Whatever goes wrong with a message, also what nobody foresaw, is a reason to reject this message.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.edge.schema import SCHEMA
from consumer.event import arrow, json, rules
from consumer.event.errors import EventError
from consumer.event.json import Event, Wire
from consumer.event.times import is_time
from consumer.ingest.stretches import MESSAGE_BYTES, stretches
from consumer.kafka.client import Headers, Message
from consumer.kafka.records import Unreadable
from process.text import visible

BAD_ROWS = 100  # of a bulk message that are rejected one by one; beyond, it is rejected whole
# Stands between the messages of a stretch. No sender can know it, so each time it is found at the
# top level is the end of one message, however the messages themselves may be cut or joined.
_MARK = secrets.randbits(53)
_JOIN = b",%d," % _MARK
_decoder = msgspec.json.Decoder(list[Wire | int])
Numbers = npt.NDArray[np.int64]


class Rejected(NamedTuple):
    """A message that is no event, or one row of a bulk message; `value` is the part rejected."""

    message: Message
    reason: str
    value: bytes | None
    row: int | None = None
    unforeseen: bool = False  # nobody expected an error of this kind


class Position(NamedTuple):
    """Of an event in a partition: the message's offset, and its number from 0 in the message."""

    offset: int
    row: int


def rows(messages: Sequence[Message]) -> tuple[pa.Table, list[Rejected]]:
    """Rows of SCHEMA, in the order of the messages, and the rejected ones.

    The item_id of a row of type `forget` is empty, or HERE where it forgets in one partition alone;
    such rows go to `EdgeStore.erase`, not to `append`. An event without a time has the time of its
    message, or of now where that is none either.
    """
    tables: list[pa.Table] = []
    rejected: list[Rejected] = []
    for stretch in stretches(messages):
        tables += _taken(stretch, rejected)
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


def sent_at(message: Message, now_ms: int) -> int:
    """When a message was sent, epoch milliseconds; now where it does not tell a time in range."""
    sent = message.timestamp
    return sent if sent is not None and is_time(sent) else now_ms


def _taken(messages: Sequence[Message], rejected: list[Rejected]) -> Iterator[pa.Table]:
    """The last net: an error of any kind costs only the message that it is about."""
    first = messages[0]
    refused: list[Rejected] = []
    try:
        if isinstance(first.value, Unreadable):
            raise EventError(first.value.reason)
        if first.headers and arrow.is_bulk(first.headers):
            table = _bulk(first, refused)
        else:
            table = _json(messages, refused)
    except EventError as error:
        rejected.append(Rejected(first, str(error), first.value))
    except Exception as error:
        if len(messages) > 1:
            for at in range(len(messages)):
                yield from _taken(messages[at : at + 1], rejected)
            return
        reason = f"{type(error).__name__}: {visible(str(error), 200)}"
        rejected.append(Rejected(first, reason, first.value, unforeseen=True))
    else:
        rejected += refused
        yield table


def _json(messages: Sequence[Message], rejected: list[Rejected]) -> pa.Table:
    """The events of messages of JSON; one wrong event rejects the whole message."""
    reasons: dict[int, str] = {}  # by number of the message
    wires = _at_once(messages)
    if wires is not None:
        source = np.arange(len(messages))
    else:
        wires, source = _one_by_one(messages, reasons)
    checked = rules.check(json.columns(wires))
    begins = np.searchsorted(source, np.arange(len(messages)))
    many = np.bincount(source, minlength=len(messages)) > 1
    for row, reason in checked.bad:
        at = int(source[row])
        event = f"event {row - begins[at]} of the message: " if many[at] else ""
        reasons.setdefault(at, event + reason)
    rejected += (Rejected(messages[at], reasons[at], messages[at].value) for at in sorted(reasons))
    table, numbers = checked.table, checked.rows
    if checked.bad:
        whole = ~np.isin(source[numbers], list(reasons))
        table, numbers = table.filter(pa.array(whole)), numbers[whole]
    return _table(table, messages, source[numbers])


def _at_once(messages: Sequence[Message]) -> list[Wire] | None:
    """The events of messages with a JSON object each; None if any of them is anything else."""
    n = len(messages)
    if n == 1:
        return None
    try:
        joined = b"[%b]" % _JOIN.join([message.value for message in messages])  # type: ignore[misc]  # of a null value: the TypeError below
        found: list[Any] = _decoder.decode(joined)
    except (TypeError, ValueError, RecursionError):
        return None
    wires = found[::2]
    whole = len(found) == 2 * n - 1 and found[1::2].count(_MARK) == n - 1
    return wires if whole and int not in set(map(type, wires)) else None


def _one_by_one(messages: Sequence[Message], reasons: dict[int, str]) -> tuple[list[Wire], Numbers]:
    """The events of each message alone, and the number of each event's message."""
    wires: list[Wire] = []
    source: list[int] = []
    for at, message in enumerate(messages):
        try:
            _check_length(message)
            parsed = json.parse(message.value)
        except EventError as error:
            reasons[at] = str(error)
        else:
            wires += parsed
            source += [at] * len(parsed)
    return wires, np.array(source, np.int64)


def _bulk(message: Message, rejected: list[Rejected]) -> pa.Table:
    """The rows of a bulk message; a wrong row is rejected alone.

    Raises:
        EventError: the whole message is rejected, also if all or too many of its rows are wrong.
    """
    _check_length(message)
    given = arrow.read(message.value or b"")
    checked = rules.check(given)
    wrong, n = len(checked.bad), given.num_rows
    bare = _without_value(message)
    spent, beside = (
        0,
        len(message.key or b"") + headers_size(message.headers),
    )  # that each letter has
    for row, reason in checked.bad:
        value = arrow.alone(given, row) if wrong <= BAD_ROWS else b""
        spent += len(value) + beside
        if wrong == n or wrong > BAD_ROWS or spent > MESSAGE_BYTES:
            raise EventError(f"{wrong} of {n} rows are wrong, the first is row {row}: {reason}")
        rejected.append(Rejected(bare, f"row {row} of the message: {reason}", value, row))
    return _table(checked.table, [message], np.zeros(len(checked.rows), np.int64))


def headers_size(headers: Headers) -> int:
    """Bytes of a message's headers."""
    return sum(len(name) + len(content or b"") for name, content in headers)


def _check_length(message: Message) -> None:
    if len(message.value or b"") > MESSAGE_BYTES:
        raise EventError(f"the message is longer than {MESSAGE_BYTES} bytes; split it")


def _without_value(message: Message) -> Message:
    """What a letter of a row needs of its message, so that the rest is not kept in memory."""
    topic, partition, offset = message.topic, message.partition, message.offset
    return Message(topic, partition, offset, message.timestamp, message.key, None, message.headers)


def _table(good: pa.Table, messages: Sequence[Message], source: Numbers) -> pa.Table:
    """Rows of SCHEMA; `source` has the number of each row's message."""
    times = good["timestamp"]
    if times.null_count:
        now = int(time.time() * 1000)
        sent = np.array([sent_at(message, now) for message in messages], np.int64)
        times = pc.coalesce(times, pa.array(sent[source]))
    items, forgets = good["item_id"], pc.equal(good["type"], rules.FORGET)
    if pc.any(forgets).as_py():
        here = np.array([rules.ONLY_HERE in message.headers for message in messages])[source]
        items = pc.if_else(pc.and_(forgets, pa.array(here)), rules.HERE, items)
    partitions = np.array([message.partition for message in messages], np.int32)
    offsets = np.array([message.offset for message in messages], np.int64)
    columns = [
        good["user_id"],
        items,
        good["interaction"],
        good["type"],
        pc.multiply(times, 1000).cast(SCHEMA.field("timestamp").type),
        pa.array(partitions[source]),
        pa.array(offsets[source]),
    ]
    return pa.table(columns, schema=SCHEMA)
