"""Whatever a client sends becomes rows or a dead letter, and ends neither consumer nor serving."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kafka import KafkaProducer

from consumer.event import arrow
from consumer.ingest.batch import Batch
from consumer.ingest.decode import events, rows
from consumer.kafka.client import Message
from consumer.kafka.records import HeaderKey
from serving.edges.user_edges import UserEdges
from tests.consumer.test_messages import CODECS, configure, take_all
from tests.ingesting import Topic
from trainer.graph.weights import Weighing


class Sent(NamedTuple):
    value: bytes | None
    headers: Any  # pairs of a key and a value
    key: bytes | None
    timestamp: int
    codec: str


numbers = st.one_of(
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.sampled_from([0, -1, 10**400, 1_795_617_000, 1_795_617_000_000, 2**63, 1e308, -0.0]),
)
texts = st.one_of(
    st.text(max_size=9),
    st.sampled_from(["", "u", "remove", "forget", "\x00", "\n\x1b[2J", "x" * 300, "1795617000"]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
names = st.sampled_from(["user_id", "item_id", "interaction", "timestamp", "type", "more"])
likely = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["u", "v", 7]), "item_id": st.sampled_from(["i", "j", 8, None])},
    optional={"interaction": scalars, "timestamp": scalars, "type": scalars, "more": nested},
)
objects = st.one_of(likely, st.dictionaries(names, nested))
as_json = st.one_of(objects, st.lists(objects, max_size=4), nested).map(
    lambda value: json.dumps(value).encode()
)
users = st.sampled_from(["u", "u", "", None])
KINDS: list[Any] = [
    pa.string(), pa.large_string(), pa.string_view(), pa.int8(), pa.uint64(), pa.float16(),
    pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.timestamp("s", "UTC"),
    pa.timestamp("ns", "UTC\n"), pa.duration("s"), pa.decimal128(38, 2), pa.null(), pa.binary(),
    pa.list_(pa.int8()), pa.struct([("a\n", pa.int8())]), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.int64()), pa.run_end_encoded(pa.int32(), pa.string()),
]  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Columns of any types under the event's names, of arbitrary bytes where a type allows it."""
    n = draw(st.integers(0, 5))
    columns = {
        "user_id": pa.array(draw(st.lists(users, min_size=n, max_size=n)), pa.string()),
        "item_id": pa.array([f"i{row}" for row in range(n)], pa.string()),
    }
    for name in draw(st.lists(names, max_size=4, unique=True)):
        kind = draw(st.sampled_from(KINDS))
        size = draw(st.integers(0, 2**31))
        column = pa.nulls(n, kind)
        if pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
            data = np.random.default_rng(size).bytes(16 * n)
            column = pa.Array.from_buffers(kind, n, [None, pa.py_buffer(data)])
        elif pa.types.is_string(kind):
            column = pa.array(draw(st.lists(texts.filter(_is_text), min_size=n, max_size=n)), kind)
        columns[name] = column
    return pa.table(columns)


def _is_text(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


@st.composite
def as_arrow(draw: st.DrawFn) -> bytes:
    table = draw(tables())
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=draw(st.sampled_from([None, "lz4", "zstd"])))
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=draw(st.sampled_from([1, 100])))
    value = bytearray(sink.getvalue())
    for at in draw(st.lists(st.integers(0, len(value) - 1), max_size=3)):
        value[at] = draw(st.integers(0, 255))
    return bytes(value[: draw(st.sampled_from([len(value), len(value) - 9]))])


headers = st.lists(
    st.tuples(
        st.one_of(st.text(max_size=5).filter(_is_text), st.binary(max_size=5).map(HeaderKey)),
        st.one_of(st.none(), st.binary(max_size=5)),
    ),
    max_size=3,
)
value = st.one_of(st.none(), st.binary(max_size=40), as_json)
bulk = st.tuples(as_arrow(), headers).map(lambda pair: (pair[0], [*pair[1], *arrow.HEADERS]))
sent = st.builds(
    lambda content, *others: Sent(*content, *others),
    st.one_of(st.tuples(value, headers), bulk),
    st.one_of(st.none(), st.binary(max_size=9)),
    st.one_of(st.sampled_from([-1, 0, 1_795_617_000_000]), st.integers(0, 2**62)),
    st.sampled_from(CODECS),
)


def _message(each: Sent, offset: int) -> Message:
    return Message("t", 0, offset, each.timestamp, each.key, each.value, each.headers)


@pytest.mark.parametrize("examples", [100, pytest.param(600, marks=pytest.mark.long)])
def test_every_message_becomes_rows_or_letters_in_both_processes(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(sent, min_size=1, max_size=6))
    def check(messages: list[Sent]) -> None:
        _account(messages)

    check()


def _account(messages: list[Sent]) -> None:
    """Take the messages as the consumer and as serving do: none is lost, both agree."""
    polled = [_message(each, offset) for offset, each in enumerate(messages)]
    batch = Batch()
    rejected = batch.take(polled, None, 0)
    assert not [each.reason for each in rejected if each.unforeseen]
    assert all(each.reason.isprintable() for each in rejected)
    table, again = rows(polled)
    assert [each.reason for each in again] == [each.reason for each in rejected]
    accounted = {each.message.offset for each in rejected}
    edges = UserEdges(Weighing())
    for event, partition, at in events(table):
        edges.apply(event, partition, at)
        accounted.add(at.offset)
        assert 1 <= len(event.user_id.encode()) <= 256
        assert math.isfinite(event.interaction)
        assert event.timestamp >= 631_152_000_000
    empty = {message.offset for message in polled if (message.value or b"").strip() == b"[]"}
    assert accounted | empty == {message.offset for message in polled}


@pytest.mark.parametrize("examples", [100, pytest.param(400, marks=pytest.mark.long)])
def test_consumer_and_serving_account_for_all_that_clients_send(
    apache: str, redis_url: str, tmp_path: Path, examples: int
) -> None:
    topic = Topic(apache, tmp_path)
    configure(topic, "message.timestamp.after.max.ms", str(2**63 - 1))
    made: list[Sent] = []

    @settings(max_examples=examples, deadline=None, phases=[Phase.generate], database=None)
    @given(sent)
    def make(each: Sent) -> None:
        table, _ = rows([_message(each, 0)])
        if "forget" not in table["type"].to_pylist():  # it would erase what is counted below
            made.append(each)

    make()
    name = topic.settings.kafka_topic
    others: dict[str, Producer] = {}
    owns: dict[str, KafkaProducer] = {}
    for each in made:
        text = all(not isinstance(key, HeaderKey) for key, _ in each.headers)
        if text:  # librdkafka's client can send headers without a value, but no bytes as keys
            options = {"bootstrap.servers": apache, "compression.type": each.codec, "log_level": 0}
            client = others.setdefault(each.codec, Producer(options))
            at = max(each.timestamp, 0)
            client.produce(name, each.value, each.key, 0, headers=each.headers, timestamp=at)
        else:
            own = owns.get(each.codec) or KafkaProducer(
                bootstrap_servers=apache,
                compression_type=None if each.codec == "none" else each.codec,
            )
            owns[each.codec] = own
            own.send(
                name,
                each.value if each.value is not None or each.key is not None else b"",
                each.key,
                [(key, content or b"") for key, content in each.headers],
                0,
                each.timestamp,
            )
    assert [client.flush(30) for client in others.values()] == [0] * len(others)
    for own in owns.values():
        own.close()
    letters = take_all(topic, redis_url)
    stored = topic.rows()["kafka_offset"].to_pylist()
    accounted = {int(each.source.split("/")[2]) for each in letters} | set(stored)
    empty = sum((each.value or b"").strip() == b"[]" for each in made)
    assert topic.length() == len(made)
    assert len(accounted) + empty == len(made)
    assert stored
    assert letters
    topic.publisher.close()
