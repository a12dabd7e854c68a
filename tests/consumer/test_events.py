import json
import time

import pytest

from consumer.event.errors import EventError
from consumer.event.json import Event, encode
from consumer.ingest.decode import events, rows
from consumer.kafka.client import Message

SENT = 1_764_022_200_001  # when the messages were sent


def decode(value: bytes | None, sent: int = SENT) -> list[Event]:
    table, rejected = rows([Message("t", 0, 0, sent, b"k", value, ())])
    if rejected:
        raise EventError(rejected[0].reason)
    return [event for event, _, _ in events(table)]


def test_an_event_with_ids_alone_gets_the_defaults() -> None:
    assert decode(b'{"user_id":"u1","item_id":"i9"}') == [
        Event("u1", "i9", 1.0, SENT, "interaction")
    ]


def test_integer_ids_become_their_decimal_strings() -> None:
    [event] = decode(b'{"user_id":-7,"item_id":99999999999999999999999}')
    assert (event.user_id, event.item_id) == ("-7", "99999999999999999999999")


@pytest.mark.parametrize(
    "timestamp", ["1764022200000", '"2025-11-24T22:10:00Z"', '"2025-11-24T23:10:00+01:00"']
)
def test_timestamps_may_be_rfc_3339_or_epoch_milliseconds(timestamp: str) -> None:
    [event] = decode(b'{"user_id":1,"item_id":2,"timestamp":%s}' % timestamp.encode())
    assert event.timestamp == 1764022200000


def test_an_array_gives_all_its_events_and_unknown_fields_are_ignored() -> None:
    events = decode(b'[{"user_id":"a","item_id":"b","x":{}},{"user_id":"c","item_id":"d"}]')
    assert [event.user_id for event in events] == ["a", "c"]


def test_encode_and_decode_are_inverse() -> None:
    event = Event("ü\x00", "i\n", 4.5, 1764022200123, "rating")
    assert decode(encode(event)) == [event]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the message is empty"),
        (b"", "the message is empty"),
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "got `array`"),
        (b'{"user_id":"u","item_id":"i","x":%s}' % (b"[" * 100_000), "not JSON"),
        (b'{"user_id":"u"}', "item_id is missing"),
        (b'{"user_id":null,"item_id":"i"}', "user_id is missing"),
        (b'{"user_id":true,"item_id":"i"}', "user_id"),
        (b'{"user_id":"","item_id":"i"}', "user_id is empty"),
        (b'{"user_id":"%s","item_id":"i"}' % (b"x" * 257), "user_id is longer than 256 bytes"),
        (
            '{{"user_id":"u","item_id":"{}"}}'.format("é" * 129).encode(),
            "item_id is longer than 256 bytes",
        ),
        (b'{"user_id":"u","item_id":"i","interaction":NaN}', "interaction is nan; send a number"),
        (b'{"user_id":"u","item_id":"i","interaction":-Infinity}', "interaction is -inf"),
        (b'{"user_id":"u","item_id":"i","interaction":1e39}', "interaction is 1e\\+39; send a nu"),
        (b'{"user_id":"u","item_id":"i","interaction":1e999}', "interaction is inf; send a number"),
        (b'{"user_id":"u","item_id":"i","interaction":"5"}', "interaction"),
        (b'{"user_id":"u","item_id":"i","timestamp":"yesterday"}', "timestamp"),
        (b'{"user_id":"u","item_id":"i","timestamp":"2025-11-24T22:10:00"}', "timestamp"),
        (b'{"user_id":"u","item_id":"i","type":"%s"}' % (b"t" * 65), "type is longer than 64"),
        (b"7", "got `int`"),
    ],
)
def test_a_wrong_message_is_rejected_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(EventError, match=reason):
        decode(value)


def test_a_timestamp_more_than_a_day_ahead_is_rejected() -> None:
    ahead = int(time.time() * 1000) + 25 * 3_600_000
    with pytest.raises(EventError, match="more than a day ahead"):
        decode(json.dumps({"user_id": 1, "item_id": 2, "timestamp": ahead}).encode())


def test_one_wrong_event_rejects_the_whole_message() -> None:
    with pytest.raises(EventError, match="item_id is empty"):
        decode(b'[{"user_id":"a","item_id":"b"},{"user_id":"a","item_id":""}]')
