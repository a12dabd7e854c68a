"""Producers of other clients, as differently set as users set them, and their log read back.

What was committed is told by a client that the product does not use: the topic, read by librdkafka.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import confluent_kafka as confluent
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from tests.services import wait_for

CLIENTS = ("kafka-python", "confluent")
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PARTITIONERS = ("murmur2", "crc32", "random")
MODES = ("plain", "idempotent", "transactional")
POOL = 10  # producers in use: each client with each codec
STRETCH = 1_500  # events in a row by one producer, at most
ABORTED = 0.3  # share of the transactions
PATIENCE_MS = 60_000  # a broker that is killed is back within this
RECONNECT_MS = 1_000
TRANSACTION_MS = 15_000  # after which the broker aborts what was left open
BEGAN_MS = int(time.time() * 1000)  # now: a broker's retention goes by the messages' own times
QUIET = logging.getLogger("librdkafka")  # that a broker is killed is meant
QUIET.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Record:
    """One event; all of it follows from its number, but for what changes nothing."""

    number: int
    aborted: bool = False

    @property
    def user(self) -> str:
        return f"u{self.number % 997}"

    @property
    def item(self) -> str:
        return f"{'aborted' if self.aborted else 'i'}{self.number}"

    @property
    def timestamp(self) -> int:
        return BEGAN_MS + self.number

    def value(self) -> bytes:
        """Every third leaves its time to the message."""
        told = {"user_id": self.user, "item_id": self.item, "interaction": self.number / 7}
        if self.number % 3:
            told["timestamp"] = self.timestamp
        return json.dumps(told).encode()


@dataclass(frozen=True)
class Way:
    """How one producer is set."""

    client: str
    codec: str
    partitioner: str
    mode: str


class NotSent(Exception):
    """The client does not know whether a stretch has arrived; it is sent again."""


class Producer(Protocol):
    """One client, with one way."""

    def send(self, topic: str, records: Sequence[Record], abort: bool) -> None:
        """Send all of them and wait for the broker; in a transaction where the way has one.

        Raises:
            NotSent: it is not known what has arrived.
        """

    def close(self) -> None: ...


class KafkaPython:
    """The client of the product, set otherwise."""

    def __init__(self, address: str, way: Way, chance: random.Random) -> None:
        self._way, self._chance = way, chance
        transactional = way.mode == "transactional"
        self._producer = KafkaProducer(
            bootstrap_servers=address,
            compression_type=None if way.codec == "none" else way.codec,
            acks="all" if way.mode != "plain" else 1,
            enable_idempotence=way.mode != "plain",
            transactional_id=uuid.uuid4().hex if transactional else None,
            transaction_timeout_ms=TRANSACTION_MS,
            linger_ms=chance.choice([0, 5, 50]),
            batch_size=chance.choice([0, 2_000, 100_000]),
            max_block_ms=PATIENCE_MS,
            delivery_timeout_ms=PATIENCE_MS,
            request_timeout_ms=PATIENCE_MS // 4,
            reconnect_backoff_max_ms=RECONNECT_MS,
        )
        if transactional:
            self._producer.init_transactions()

    def send(self, topic: str, records: Sequence[Record], abort: bool) -> None:
        transactional = self._way.mode == "transactional"
        try:
            if transactional:
                self._producer.begin_transaction()
            partitions = sorted(self._producer.partitions_for(topic))
            sent = [self._one(topic, record, partitions) for record in records]
            self._producer.flush(timeout=PATIENCE_MS / 1000)
            if transactional and abort:
                self._producer.abort_transaction()
                return
            for future in sent:
                future.get(timeout=1)
            if transactional:
                self._producer.commit_transaction()
        except KafkaError as error:
            raise NotSent(str(error)) from error

    def _one(self, topic: str, record: Record, partitions: list[int]) -> Any:
        anywhere = self._chance.choice(partitions) if self._way.partitioner == "random" else None
        return self._producer.send(
            topic,
            record.value(),
            key=record.user.encode(),
            headers=[("trace", record.item.encode()), ("empty", b"")],
            partition=anywhere,
            timestamp_ms=record.timestamp,
        )

    def close(self) -> None:
        self._producer.close(timeout=5)


class Confluent:
    """librdkafka, with headers that have no value."""

    PARTITIONERS = {"murmur2": "murmur2", "crc32": "consistent", "random": "random"}  # noqa: RUF012  read only

    def __init__(self, address: str, way: Way, chance: random.Random) -> None:
        self._way = way
        settings = {
            "bootstrap.servers": address,
            "compression.type": way.codec,
            "partitioner": self.PARTITIONERS[way.partitioner],
            "acks": "all" if way.mode != "plain" else "1",
            "enable.idempotence": way.mode != "plain",
            "reconnect.backoff.max.ms": RECONNECT_MS,
            "linger.ms": chance.choice([0, 5, 50]),
            "message.timeout.ms": TRANSACTION_MS if way.mode == "transactional" else PATIENCE_MS,
        }
        if way.mode == "transactional":
            settings["transactional.id"] = uuid.uuid4().hex
            settings["transaction.timeout.ms"] = TRANSACTION_MS
        self._producer = confluent.Producer(settings, logger=QUIET)
        if way.mode == "transactional":
            self._producer.init_transactions(PATIENCE_MS / 1000)

    def send(self, topic: str, records: Sequence[Record], abort: bool) -> None:
        transactional = self._way.mode == "transactional"
        failed: list[object] = []
        try:
            if transactional:
                self._producer.begin_transaction()
            for record in records:
                self._one(topic, record, failed)
            self._producer.flush(PATIENCE_MS / 1000)
            if transactional and abort:
                self._producer.abort_transaction(PATIENCE_MS / 1000)
                return
            if transactional and not failed:
                self._producer.commit_transaction(PATIENCE_MS / 1000)
        except confluent.KafkaException as error:
            raise NotSent(str(error)) from error
        if failed:
            raise NotSent(str(failed[0]))

    def _one(self, topic: str, record: Record, failed: list[object]) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    record.value(),
                    key=record.user,
                    headers=[("trace", None), ("trace", record.item.encode()), ("", b"\xff")],
                    timestamp=record.timestamp,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def close(self) -> None:
        self._producer.purge()


def ways(chance: random.Random, transactions: bool) -> list[Way]:
    """Ways in which each client has each codec, each partitioner and each mode."""
    modes = MODES if transactions else MODES[:2]
    shift = chance.randrange(30)
    return [
        Way(
            CLIENTS[at % 2],
            CODECS[at // 2],
            PARTITIONERS[(at // 2 + shift) % 3],
            modes[(at // 2 + at % 2 + shift // 3) % len(modes)],
        )
        for at in range(POOL)
    ]


class Crowd:
    """Many producers that take turns."""

    def __init__(self, address: str, topic: str, seed: int, transactions: bool) -> None:
        self._address, self._topic = address, topic
        self._chance = random.Random(seed)
        self._ways = ways(self._chance, transactions)
        self._made: dict[Way, Producer] = {}
        self.used: set[Way] = set()
        self.committed: dict[str, Way] = {}  # item -> who was told that it has arrived
        self.aborted: set[str] = set()
        self.again = 0  # stretches that were sent again

    def publish(self, events: int, wait: Callable[[int], None]) -> None:
        """Send the events 0 to `events`; `wait` is called with the number of those sent."""
        done = 0
        while done < events:
            way = self._chance.choice(self._ways)
            until = min(events, done + self._chance.randint(1, STRETCH))
            if way.mode == "transactional" and self._chance.random() < ABORTED:
                given_up = [Record(number, aborted=True) for number in range(done, until)]
                self.aborted |= {record.item for record in given_up}
                self._send(way, given_up, abort=True)
            records = [Record(number) for number in range(done, until)]
            while not self._send(way, records, abort=False):
                self.again += 1
            self.committed |= {record.item: way for record in records}
            done = until
            wait(done)
        for producer in self._made.values():
            producer.close()

    def _send(self, way: Way, records: Sequence[Record], abort: bool) -> bool:
        self.used.add(way)
        kind = KafkaPython if way.client == "kafka-python" else Confluent
        try:
            if way not in self._made:
                self._made[way] = kind(self._address, way, self._chance)
            self._made[way].send(self._topic, records, abort)
        except (NotSent, KafkaError, confluent.KafkaException):
            if broken := self._made.pop(way, None):
                broken.close()
            return False
        return True


def log_of(address: str, topic: str) -> dict[tuple[int, int], str]:
    """(partition, offset) -> item of every message that is committed, as librdkafka reads it.

    What a client left open is aborted by the broker after a while, and waited for: until then
    nothing behind it is read.
    """
    reader, uncommitted = (_reader(address, level) for level in ("committed", "uncommitted"))
    numbers = reader.list_topics(topic, 30).topics[topic].partitions
    begin = [confluent.TopicPartition(topic, p, confluent.OFFSET_BEGINNING) for p in numbers]

    def nothing_open() -> bool:
        return all(_end(reader, tp) == _end(uncommitted, tp) for tp in begin)

    try:
        wait_for("every transaction to end", nothing_open)
    except AssertionError as error:
        raise AssertionError(f"{error}: {_open(address, topic, list(numbers))}") from error
    reader.assign(begin)
    found = dict(_until_the_end(reader, len(begin)))
    reader.close()
    uncommitted.close()
    return found


def _open(address: str, topic: str, partitions: list[int]) -> str:
    """What the broker says of transactions: of those that are open in a partition, and of all that
    their coordinator knows. A transaction that hangs is among the first alone.
    """
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        found = admin.describe_producers([TopicPartition(topic, p) for p in partitions])
        known = admin.list_transactions()
    of = {
        at.partition: [each for each in state.active_producers if each[-1] >= 0]
        for at, state in found.items()
    }
    return f"open {of}, known {known}"


def _reader(address: str, level: str) -> Any:  # its types allow None everywhere
    return confluent.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": uuid.uuid4().hex,
            "isolation.level": f"read_{level}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def _end(reader: Any, partition: confluent.TopicPartition) -> int:
    return int(reader.get_watermark_offsets(partition, timeout=30)[1])


def _until_the_end(reader: Any, partitions: int) -> Iterator[tuple[tuple[int, int], str]]:
    ended: set[int] = set()
    heard = time.monotonic()
    while len(ended) < partitions:
        found = reader.consume(10_000, timeout=1)  # it waits for so long unless so many are there
        heard = time.monotonic() if found else heard
        assert time.monotonic() < heard + 30, "the log has no end"
        for message in found:
            if message.error() is None:
                item = json.loads(message.value())["item_id"]
                yield (message.partition(), message.offset()), item
            else:
                assert message.error().code() == confluent.KafkaError._PARTITION_EOF
                ended.add(message.partition())
