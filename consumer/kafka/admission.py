"""Whether the broker answers a running member of a group, and lets it in.

The client waits in silence for a broker that is away. So after some seconds without a message the
broker is asked. What it refuses to a member that it let in before, such as a right that was taken
away, is waited for; what it refuses from the start ends the process.
"""

from __future__ import annotations

import gc
import logging
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    KafkaError,
    UnknownTopicOrPartitionError,
)

from consumer.kafka.access import check_access
from consumer.kafka.client import CHECK_MS, AccessRefused, StreamError, in_words, words
from consumer.kafka.reach import broker_outage
from consumer.settings import ConsumerSettings

CHECK_EVERY = 5.0  # seconds of silence after which the broker is asked whether it is there


class Admission:
    """What is known of the broker, from the point of view of one member."""

    def __init__(self, settings: ConsumerSettings, group: str, log: logging.Logger) -> None:
        self._settings = settings
        self._group = group
        self._outage = broker_outage(log)
        self._heard = time.monotonic()
        self._again = 0.0  # when the broker is asked again after it refused
        self._shut_out = False  # whether the broker refused to let the process in

    @property
    def trouble(self) -> str:
        """Why nothing comes from the broker; empty while it answers."""
        return self._outage.trouble

    def answered(self) -> None:
        """Note that something came from the broker."""
        self._heard = time.monotonic()
        self._outage.worked()

    def nothing_came(self, client: KafkaConsumer, admitted: bool) -> None:
        """After some seconds without a message, ask the broker whether it is there, or else why.

        Raises:
            AccessRefused, StreamError: as `refused`.
        """
        if time.monotonic() - self._heard <= CHECK_EVERY:
            return
        self._heard = time.monotonic()
        topic = self._settings.kafka_topic
        partitions = list(client.assignment()) or [TopicPartition(topic, 0)]
        try:
            client.end_offsets(partitions, timeout_ms=CHECK_MS)
        except AuthorizationError as error:
            self.refused(error, admitted)
            return
        except KafkaError as error:
            self._explain(error)
            gc.collect(1)  # each try of the client leaves a socket open, in a cycle
            return
        if self._heard - self._again > CHECK_EVERY:  # a right that is missing would be told by then
            self.answered()

    def refused(self, error: KafkaError, admitted: bool) -> None:
        """Wait while the broker refuses what it allowed before, as a right or a password.

        Args:
            admitted: whether the broker has let this member in before.

        Raises:
            AccessRefused, StreamError: it has not.
        """
        if error.retriable:
            return
        of_group = isinstance(error, GroupAuthorizationFailedError)
        what = f"group {self._group}" if of_group else f"topic {self._settings.kafka_topic}"
        failure = in_words(error, self._settings, f"READ {what}")
        if not admitted:
            raise failure from error
        self._shut_out = not isinstance(error, AuthorizationError)
        self._wait(failure)

    def is_kept_out(self) -> bool:
        """Whether the broker has refused, and is to be left alone now."""
        if time.monotonic() < self._again:
            return True
        if self._shut_out:
            try:
                check_access(self._settings)
            except (AccessRefused, OSError) as error:
                self._wait(error)
                return True
        return False

    def needs_new_client(self) -> bool:
        """Whether the process was shut out and is let in again; told once.

        The client never tries again where a password was refused.
        """
        shut_out, self._shut_out = self._shut_out, False
        return shut_out

    def _explain(self, error: KafkaError) -> None:
        """Say why the client fails, which it cannot tell itself."""
        try:
            check_access(self._settings)
        except AccessRefused as refused:
            self._shut_out = True
            self._wait(refused)
        except OSError as away:
            self._outage.failed(away)
        else:
            missing = isinstance(error, UnknownTopicOrPartitionError)
            topic = self._settings.kafka_topic
            self._outage.failed(f"topic {topic} is missing" if missing else words(error))

    def _wait(self, failure: StreamError | OSError) -> None:
        self._again = time.monotonic() + self._outage.failed(failure)
