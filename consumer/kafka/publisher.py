"""Sending messages to Kafka, one by one or in transactions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, UnknownError
from kafka.partitioner.default import murmur2
from kafka.producer.future import FutureRecordMetadata

from consumer.kafka.access import check_access
from consumer.kafka.client import (
    AccessRefused,
    Headers,
    StreamError,
    TooLarge,
    in_words,
    make_client,
)
from consumer.settings import ConsumerSettings

DELIVERY_MS = 60_000  # after which a message counts as not delivered
SPLIT_SECONDS = 0.01  # between two looks at messages that were split
CLOSE_SECONDS = 1.0  # for what is on its way
REQUEST_BYTES = 16 * 1024 * 1024  # of one message; a broker's own limit is mostly 1 MiB


class Sent:
    """A message that was queued, and what became of it; known after `flush`."""

    def __init__(self, future: FutureRecordMetadata) -> None:
        self._future = future

    @property
    def acknowledged(self) -> bool:
        """Whether the broker has taken it."""
        return bool(self._future.succeeded())

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of an acknowledged message."""
        return int(self._future.value.partition), int(self._future.value.offset)


class Publisher:
    """Sends messages; acknowledged by all in-sync replicas, in order, without doubles by retry."""

    def __init__(self, settings: ConsumerSettings, transactional_id: str | None = None) -> None:
        """Connect.

        Args:
            transactional_id: for `transaction`; a second publisher of the same one ends the first.

        Raises:
            AccessRefused: it does not let this process in.
            StreamError: the broker does not answer.
        """
        self._settings = settings
        self._failure: BaseException | None = None
        self._topic = settings.kafka_topic  # of the last message
        try:
            check_access(settings)
            self._producer = make_client(
                KafkaProducer,
                settings,
                acks="all",
                linger_ms=20,
                batch_size=256 * 1024,
                max_request_size=REQUEST_BYTES,
                max_block_ms=DELIVERY_MS,
                delivery_timeout_ms=DELIVERY_MS,
                request_timeout_ms=DELIVERY_MS // 2,
                transactional_id=transactional_id,
            )
        except (KafkaError, OSError) as error:
            raise in_words(error, settings, f"WRITE topic {self._topic}") from error
        if transactional_id:
            self._begin_transactions(transactional_id)

    def _begin_transactions(self, transactional_id: str) -> None:
        try:
            self._producer.init_transactions()
        except KafkaError as error:
            self.close()
            right = f"WRITE transactional id {transactional_id}"
            raise in_words(error, self._settings, right) from error

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Sent:
        """Queue one message.

        Args:
            partition: None for the one that Kafka's partitioner chooses by the key.
            timestamp: epoch milliseconds, None for now.

        Raises:
            StreamError: it could not be queued.
        """
        self._topic = topic
        try:
            future = self._producer.send(
                topic,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                timestamp_ms=timestamp,
            )
        except KafkaError as error:
            raise self._not_delivered(error) from error
        future.add_errback(self._failed)
        return Sent(future)

    def flush(self) -> None:
        """Wait until every message is acknowledged.

        Raises:
            TooLarge: one is larger than the broker takes.
            StreamError: one could not be delivered.
        """
        while True:
            try:
                self._producer.flush()
                break
            except UnknownError:
                # The client has split messages that were too large together, and does not wait for
                # the parts; they are acknowledged or failed within DELIVERY_MS.
                time.sleep(SPLIT_SECONDS)
            except KafkaError as error:
                self._failed(error)
                break
        if self._failure:
            failure, self._failure = self._failure, None
            raise self._not_delivered(failure)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is sent inside is seen as a whole or, after an error or a kill, not at all.

        Raises:
            StreamError: it could not be delivered, so none of it is seen.
        """
        try:
            self._producer.begin_transaction()
            try:
                yield
                self.flush()
            except BaseException:
                self._producer.abort_transaction()
                raise
            self._producer.commit_transaction()
        except KafkaError as error:
            raise self._not_delivered(error) from error

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic.

        Raises:
            StreamError: the broker does not answer.
        """
        self._topic = topic
        try:
            return sorted(self._producer.partitions_for(topic))
        except KafkaError as error:
            raise self._not_delivered(error) from error

    def close(self) -> None:
        """Drop the connection and end the client's thread; call `flush` before, if what was sent
        matters. A `flush` that waits on another thread fails.
        """
        try:
            self._producer.close(timeout=CLOSE_SECONDS)
        except KafkaError:  # something was not sent yet, and the client stays open
            self._producer._sender.force_close()

    def _failed(self, error: BaseException) -> None:
        # After the broker has refused a message the client gives up all others: not the cause.
        if not isinstance(self._failure, MessageSizeTooLargeError):
            self._failure = error

    def _not_delivered(self, error: BaseException) -> StreamError:
        if re.search("ProducerFenced|InvalidProducerEpoch", repr(error)):  # or an error since
            return StreamError(
                "another dead-letters re-inject or forget has begun; run this command again"
            )
        if isinstance(error, MessageSizeTooLargeError):
            return TooLarge(f"a message is larger than topic {self._topic} takes: {error}")
        found = in_words(error, self._settings, f"WRITE topic {self._topic}")
        if isinstance(found, AccessRefused):
            return found
        return StreamError(f"a message was not delivered to {self._topic}: {error}")


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, of so many, that a message with this key goes to, by Kafka's own rule."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
