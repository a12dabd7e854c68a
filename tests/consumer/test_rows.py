import json
import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.event import arrow as bulk
from consumer.event.json import Event, Wire
from consumer.ingest import decode as module
from consumer.ingest.decode import Position, events, rows
from consumer.kafka.client import Headers, Message


def message(value: bytes | None, offset: int = 0, headers: Headers = ()) -> Message:
    return Message("t", 3, offset, 1_700_000_000_000 + offset, b"k", value, headers)


def messages(values: Sequence[bytes | None]) -> list[Message]:
    return [message(value, offset) for offset, value in enumerate(values)]


Placed = list[tuple[Event, int, Position]]


def one_by_one(given: list[Message]) -> tuple[Placed, dict[int, str]]:
    """What each message gives alone."""
    found: Placed = []
    reasons: dict[int, str] = {}
    for each in given:
        table, rejected = rows([each])
        reasons |= {one.message.offset: one.reason for one in rejected}
        found += events(table)
    return found, reasons


def at_once(given: list[Message]) -> tuple[Placed, dict[int, str]]:
    table, rejected = rows(given)
    return list(events(table)), {each.message.offset: each.reason for each in rejected}


GOOD = b'{"user_id":"u","item_id":"i"}'
ids = st.one_of(st.text(min_size=1, max_size=8), st.integers(-(2**70), 2**70))
moments = st.datetimes(datetime(1990, 1, 2), datetime(2026, 1, 1))
seconds = st.integers(700_000_000, 1_700_000_000)
times = st.one_of(
    st.none(),
    st.integers(-(10**12), 10**20),
    st.floats(0, 1e12),
    st.builds(int.__mul__, seconds, st.sampled_from([1, 1_000, 10**6, 10**9])),
    seconds.map(str),
    moments.map(lambda d: d.isoformat() + "Z"),
    moments.map(lambda d: d.isoformat() + "+05:30"),
)
event = st.fixed_dictionaries(
    {"user_id": ids, "item_id": ids},
    optional={
        "interaction": st.one_of(st.none(), st.floats(-1e13, 1e13), st.integers(-5, 5)),
        "timestamp": times,
        "type": st.one_of(st.sampled_from(["view", "remove", "forget"]), st.text(max_size=8)),
        "more": st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4),
    },
).map(lambda fields: json.dumps(fields).encode())
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
# Pieces that are events only when a decoder is told several messages at once.
pieces = st.sampled_from(
    [
        b"", b" ", b"[", b"]", b'{"user_id":"u"', b'"item_id":"i"}', GOOD + b"," + GOOD,
        b'{"user_id":"u","item_id":"i","more":[1', b"2]}", b"1]}," + GOOD, b"null", b"7", b'"',
        b'{"user_id":"u","item_id":"i","more":"', b'"}', GOOD + b"\n" + GOOD, b"\xff", b"\x00",
        b'{"user_id":"u","item_id":"i","interaction":NaN}', b'{"user_id":"","item_id":"i"}',
        b'{"user_id":"u","item_id":"' + b"x" * 257 + b'"}', b'{"user_id":"u","item_id":null}',
        b'{"user_id":"\\ud800","item_id":"i"}', b"[" * 3000, b'{"a":' * 3000,
    ]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(event, event, event, anything, pieces, st.binary(max_size=9)), max_size=9)
)
def test_many_messages_at_once_give_what_each_gives_alone(values: list[bytes]) -> None:
    given = messages(values)
    assert at_once(given) == one_by_one(given)


@settings(max_examples=70, deadline=None)
@given(st.lists(event, min_size=1, max_size=9))
def test_events_at_once_give_what_each_gives_alone(values: list[bytes]) -> None:
    given = messages(values)
    assert at_once(given) == one_by_one(given)


def test_a_stretch_of_plain_events_is_decoded_at_once() -> None:
    made = module._at_once(messages([GOOD, b'{"user_id":7,"item_id":"i","timestamp":5}']))
    assert made == [Wire("u", "i"), Wire(7, "i", timestamp=5)]


def test_a_message_that_knows_how_they_are_joined_is_still_only_itself() -> None:
    mark = module._JOIN
    halves = [b'{"user_id":"u","item_id":"i","more":[1', b"2]}", GOOD + mark + GOOD]
    table, rejected = rows(messages(halves))
    # What no sender can know makes it whole; with it, no more than these three could be taken in.
    assert len(table) + len(rejected) == 3


def test_messages_keep_their_order_between_bulk_ones() -> None:
    many = message(bulk.encode(pa.table({"user_id": ["a", "b"], "item_id": ["c", "d"]})), 1, BULK)
    table, rejected = rows([message(GOOD), many, message(GOOD, 2)])
    assert table["user_id"].to_pylist() == ["u", "a", "b", "u"]
    assert table["kafka_offset"].to_pylist() == [0, 1, 1, 2]
    assert not rejected


BULK: Headers = bulk.HEADERS
NOW = int(time.time() * 1000)


def bulk_rows(table: pa.Table) -> tuple[list[Event], list[tuple[int | None, str]]]:
    decoded, rejected = rows([message(bulk.encode(table), 5, BULK)])
    return [e for e, _, _ in events(decoded)], [(each.row, each.reason) for each in rejected]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_bulk_ids_may_be_strings_of_any_kind(kind: pa.DataType) -> None:
    table = pa.table({"user_id": pa.array(["u", "v"], kind), "item_id": pa.array(["i", "j"], kind)})
    assert [event.item_id for event in bulk_rows(table)[0]] == ["i", "j"]


def test_bulk_columns_may_be_integers_dictionaries_and_any_time() -> None:
    table = pa.table(
        {
            "user_id": pa.array([1, 2], pa.uint32()),
            "item_id": pa.array(["i", "j"]).dictionary_encode(),
            "interaction": pa.array([3, None], pa.int8()),
            "timestamp": pa.array([1_735_689_600, None], pa.timestamp("s", "UTC")),
            "type": pa.array([None, "view"]),
            "more": [{}, {}],
        }
    )
    found, rejected = bulk_rows(table)
    assert found == [
        Event("1", "i", 3.0, 1_735_689_600_000, "interaction"),
        Event("2", "j", 1.0, 1_700_000_000_005, "view"),
    ]
    assert not rejected


def test_a_bad_row_is_rejected_alone_and_can_be_sent_again_alone() -> None:
    table = pa.table(
        {
            "user_id": ["a", "", "c", None, "e", "f", "g"],
            "item_id": ["a", "b", "x" * 257, "d", "e", "f", "g"],
            "interaction": [1.0, 1.0, 1.0, 1.0, math.nan, 1.0, 1.0],
            "timestamp": [NOW, NOW, NOW, NOW, NOW, NOW + 90_000_000, NOW],
            "type": ["t", "t", "t", "t", "t", "t", "t" * 65],
        }
    )
    found, rejected = bulk_rows(table)
    assert [event.user_id for event in found] == ["a"]
    assert [(row, reason.split(": ")[1].split(" ")[0]) for row, reason in sorted(rejected)] == [
        (1, "user_id"), (2, "item_id"), (3, "user_id"), (4, "interaction"), (5, "timestamp"),
        (6, "type"),
    ]  # fmt: skip
    _, each = rows([message(bulk.encode(table), 5, BULK)])
    alone = next(one for one in each if one.row == 4)
    assert pa.ipc.open_stream(alone.value).read_all()["user_id"].to_pylist() == ["e"]


def forget_row() -> pa.Table:
    return pa.table({"user_id": ["u"], "item_id": pa.nulls(1, pa.string()), "type": ["forget"]})


def test_a_forget_needs_no_item() -> None:
    assert bulk_rows(forget_row())[0][0][:2] == ("u", "")
    table, _ = rows([message(b'{"user_id":"u","type":"forget"}')])
    assert next(events(table))[0][:2] == ("u", "")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": ["u"]}, "column item_id is missing"),
        ({"user_id": [1.5], "item_id": ["i"]}, "column user_id is of type double"),
        ({"user_id": ["u"], "item_id": [b"i"]}, "column item_id is of type binary"),
        ({"user_id": ["u"], "item_id": ["i"], "interaction": ["1"]}, "column interaction is of"),
        ({"user_id": ["u"], "item_id": ["i"], "timestamp": [datetime(2025, 1, 1)]}, "with a zone"),
        ({"user_id": ["u"], "item_id": ["i"], "type": [1]}, "column type is of type int64"),
        (
            {"user_id": [""], "item_id": ["i"]},
            "1 of 1 rows are wrong, the first is row 0",
        ),
        ({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}, "no rows"),
        ({"user_id": pa.nulls(100_001, pa.int8()), "item_id": ["i"] * 100_001}, "more than 100000"),
    ],
)
def test_a_wrong_bulk_message_is_rejected_whole(columns: dict[str, Any], reason: str) -> None:
    found, rejected = bulk_rows(pa.table(columns))
    assert not found
    assert [row for row, _ in rejected] == [None]
    assert reason in rejected[0][1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_broken_arrow_streams_are_rejected_with_a_reason(junk: bytes, at: int, byte: int) -> None:
    whole = bytearray(bulk.encode(pa.table({"user_id": ["u", "vv"], "item_id": ["i", "jj"]})))
    whole[at % len(whole)] = byte
    for value in (junk, bytes(whole), bytes(whole[:at]), None):
        table, rejected = rows([message(value, 0, BULK)])
        assert len(table) == 2 or rejected[0].reason


def test_a_message_over_the_limit_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("stretches", "decode"):
        monkeypatch.setattr(f"consumer.ingest.{place}.MESSAGE_BYTES", 100)
    table, rejected = rows(messages([GOOD, GOOD.replace(b"}", b" " * 100 + b"}"), GOOD]))
    assert len(table) == 2
    assert "longer than 100 bytes" in rejected[0].reason
