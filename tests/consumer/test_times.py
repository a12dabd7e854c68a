"""What a timestamp means, in JSON and in Arrow messages, and which are refused in words."""

import json
import time
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from consumer.event import arrow
from consumer.event.rules import check
from consumer.ingest.decode import events, rows
from consumer.kafka.client import Headers, Message

MOMENT = 1_795_617_000  # 2026-11-25, epoch seconds
FILM = 789_652_009  # the oldest rating of MovieLens, 1995


def taken(value: bytes, headers: Headers = (), sent: int = MOMENT * 1000) -> int | str:
    """The time of the one event in a message, epoch milliseconds, or why it is rejected."""
    table, rejected = rows([Message("t", 0, 0, sent, None, value, headers)])
    return rejected[0].reason if rejected else next(events(table))[0].timestamp


def by_json(timestamp: str) -> int | str:
    return taken(b'{"user_id":"u","item_id":"i","timestamp":%s}' % timestamp.encode())


def by_arrow(timestamp: pa.Array) -> int | str:
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": timestamp})
    return taken(arrow.encode(table), arrow.HEADERS)


@pytest.mark.parametrize("seconds", [MOMENT, FILM])
@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_a_number_is_read_in_the_unit_in_which_it_is_a_time(seconds: int, per_second: int) -> None:
    number = seconds * per_second
    assert by_json(str(number)) == seconds * 1000
    assert by_json(f'"{number}"') == seconds * 1000
    assert by_json(f"{number}.0") == seconds * 1000
    assert by_arrow(pa.array([number])) == seconds * 1000
    assert by_arrow(pa.array([float(number)])) == seconds * 1000
    assert by_arrow(pa.array([str(number)]).dictionary_encode()) == seconds * 1000


def test_a_fraction_of_a_second_is_kept_to_the_millisecond() -> None:
    assert by_json("1795617000.1239") == MOMENT * 1000 + 123
    assert by_json('"1795617000.1239"') == MOMENT * 1000 + 123
    assert by_json(str(MOMENT * 10**9 + 123_999_999)) == MOMENT * 1000 + 123


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "+05:30", "no such zone"])
def test_an_arrow_timestamp_is_the_same_moment_in_every_unit_and_zone(unit: str, zone: str) -> None:
    number = MOMENT * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    assert by_arrow(pa.array([number], pa.timestamp(unit, zone))) == MOMENT * 1000


@pytest.mark.parametrize("number", [2**62, -(2**62), 2**63 - 1, -(2**63), 5])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_an_arrow_timestamp_that_no_other_unit_holds_is_rejected(number: int, unit: str) -> None:
    reason = by_arrow(pa.array([number], pa.timestamp(unit, "UTC")))
    assert f"timestamp is {number} {unit} since 1970, which is before 1990 or more" in str(reason)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("5", "timestamp is 5, which is before 1990 in seconds; send RFC 3339"),
        ("0", "timestamp is 0, which is before 1990 in seconds"),
        ("-0.0", "timestamp is -0.0, which is before 1990 in seconds"),
        ("-1795617000", "timestamp is -1795617000, which is before 1990 in seconds"),
        ("20260920", "timestamp is 20260920, which is before 1990 in seconds"),
        ("202609201200", "202609201200, which is after 2200 in seconds and before 1990 in milli"),
        ("20260920120000", "after 2200 in milliseconds and before 1990 in microseconds"),
        pytest.param(
            str(int(time.time()) + 90_000),
            "which is more than a day ahead in seconds",
            id="ahead in seconds",  # all workers of pytest-xdist must give it one name
        ),
        pytest.param(
            str(int(time.time() + 90_000) * 1000),
            "which is more than a day ahead in milliseconds",
            id="ahead in milliseconds",
        ),
        ("9000000000000000000", "which is after 2200 in nanoseconds"),
        ("1" + "0" * 399, "which is no time with a zone"),
        ("1" + "0" * 5_000, "Integer value out of range"),
        ("1e300", "which is after 2200 in nanoseconds"),
        ("1e400", "timestamp is inf, which is after 2200 in nanoseconds"),
        ("NaN", "timestamp is nan, which is not a number"),
        ("-Infinity", "timestamp is -inf, which is before 1990 in seconds"),
        ("true", "got `bool`"),
        ("[1795617000]", "got `array`"),
        ('""', "timestamp is '', which is no time with a zone"),
        ('"2026-11-25"', "timestamp is '2026-11-25', which is no time with a zone"),
        ('"2026-11-25T10:00:00"', "which is no time with a zone"),
        ('"1989-12-31T23:59:59Z"', "is before 1990 or more than a day ahead"),
        ('"9999-12-31T23:59:59Z"', "is before 1990 or more than a day ahead"),
        ('"a\\n2026 ERROR \\u001b[31m"', "timestamp is 'a\\n2026 ERROR \\x1b[31m', which"),
    ],
)
def test_what_is_no_time_is_rejected_with_its_value_and_unit(given: str, reason: str) -> None:
    assert reason in str(by_json(given))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([date(2026, 11, 25)]),
        pa.array([datetime(2026, 11, 25)], pa.timestamp("s")),
        pa.array([True]),
        pa.array([b"1795617000"]),
        pa.array([5], pa.duration("s")),
        pa.array([[MOMENT]]),
        pa.array([{"t\n2026 ERROR consumer \x1b[31m": 5}]),
    ],
)
def test_a_column_that_holds_no_moments_rejects_the_message_in_one_safe_line(
    column: pa.Array,
) -> None:
    reason = str(by_arrow(column))
    assert "column timestamp is of type" in reason
    assert reason.isprintable()
    assert len(reason) < 250


def test_null_is_not_given_in_json_and_in_arrow() -> None:
    for kind, item in (("null", '"i"'), ('"forget"', "null")):
        text = '{"user_id":"u","item_id":%s,"interaction":null,"timestamp":null,"type":%s}'
        value = (text % (item, kind)).encode()
        table, rejected = rows([Message("t", 0, 0, 10**12, None, value, ())])
        assert not rejected
        [event] = [event for event, _, _ in events(table)]
        assert event[2:4] == (1.0, 10**12)
    columns: dict[str, Any] = {"user_id": ["u", "v"], "item_id": ["i", None]}
    columns["type"] = pa.array([None, "forget"]).dictionary_encode()
    for null in (pa.nulls(2), pa.nulls(2, pa.float32()), pa.nulls(2, pa.decimal128(5, 1))):
        checked = check(pa.table(columns | {"interaction": null, "timestamp": pa.nulls(2)}))
        assert not checked.bad
        assert checked.table["type"].to_pylist() == ["interaction", "forget"]
        assert checked.table["interaction"].to_pylist() == [1.0, 1.0]
        assert checked.table["timestamp"].to_pylist() == [None, None]


@pytest.mark.parametrize("sent", [-1, 0, 5, 2**62, 2**63 - 1, -(2**63), None])
def test_an_event_is_of_now_if_its_record_has_no_time_in_range(sent: Any) -> None:
    before = int(time.time() * 1000)
    found = taken(json.dumps({"user_id": 1, "item_id": 2}).encode(), sent=sent)
    assert isinstance(found, int)
    assert before <= found <= int(time.time() * 1000)


def test_an_event_has_the_time_of_its_record_if_that_is_in_range() -> None:
    at = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert taken(json.dumps({"user_id": 1, "item_id": 2}).encode(), sent=at) == at


@pytest.mark.parametrize(
    ("id_", "becomes"),
    [
        ('"\\u0000"', "\x00"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud800"', None),
        ('"\\udc00\\ud800"', None),
        ("1e3", None),
        ("1" * 257, None),
        ("-0", "0"),
        ("99999999999999999999999999", "99999999999999999999999999"),
    ],
)
def test_what_becomes_of_odd_ids(id_: str, becomes: str | None) -> None:
    value = b'{"user_id":"first","user_id":%s,"item_id":"i"}' % id_.encode()  # the last one counts
    table, rejected = rows([Message("t", 0, 0, 10**12, None, value, ())])
    assert table["user_id"].to_pylist() == ([] if becomes is None else [becomes])
    assert all(each.reason.isprintable() for each in rejected)
    assert bool(rejected) == (becomes is None)
