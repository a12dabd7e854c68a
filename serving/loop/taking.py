"""The topic's messages -> the users' edges, and the users whose lists are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from consumer.event.json import FORGET, Event
from consumer.ingest.decode import Position, events, rows, sent_at
from consumer.kafka.client import Message
from process.text import visible
from serving.edges.user_edges import UserEdges
from serving.loop.due import DueUsers
from serving.loop.forgetting import Forgetting
from serving.loop.model_slot import ModelSlot
from serving.loop.partitions import Partitions

SAY_SECONDS = 60.0  # between two lines about skipped messages, at least


class Taking:
    """Takes event after event.

    events: how many were taken; unforeseen: how many were skipped for an error that nobody foresaw.
    """

    def __init__(
        self, edges: UserEdges, due: DueUsers, forgetting: Forgetting, slot: ModelSlot,
        partitions: Partitions, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._edges, self._due, self._forgetting, self._slot = edges, due, forgetting, slot
        self._partitions, self._log = partitions, log
        self.events = self.unforeseen = 0
        self._said_at: float | None = None  # monotonic seconds

    def take(self, messages: Sequence[Message]) -> None:
        """Take messages, those of each partition in their order.

        Few of many partitions are decoded together: a call of the decoder costs as much as hundreds
        of messages.
        """
        table, rejected = rows(messages)  # the consumer sends these to the dead letters
        for each in rejected:
            if each.unforeseen:
                self._skip(each.message.partition, each.message.offset, each.reason)
        now = int(time.time() * 1000)
        times = {(m.partition, m.offset): sent_at(m, now) for m in messages}
        for event, partition, at in events(table):
            try:
                self._apply(event, partition, at, times[partition, at.offset])
            except Exception as error:  # the last net: one event must not end the process
                self._skip(partition, at.offset, f"{type(error).__name__}: {error}")
        newest = {message.partition: message.offset for message in messages}
        for partition, offset in newest.items():
            self._due.have_read(partition, offset + 1)
        self.events += len(table)

    def _apply(self, event: Event, partition: int, at: Position, sent: int) -> None:
        self._edges.apply(event, partition, at)
        if event.type == FORGET:
            self._forgetting.note(event.user_id)
            self._slot.forget(event.user_id)
            if self._edges.partition(event.user_id) not in self._partitions.mine:
                return  # has not come again, or is another process's to write
        else:
            self._slot.note(event)
        self._due.add(event.user_id, partition, at.offset, sent)
        if self._edges.is_missing(event.user_id):
            self._due.hold_back(event.user_id)

    def _skip(self, partition: int, offset: int, reason: str) -> None:
        """Count what nobody foresaw, and say it now and then."""
        self.unforeseen += 1
        now = time.monotonic()
        if self._said_at is None or now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            self._log.error(
                "Offset %d of partition %d is skipped (%s). Messages skipped so far: %d; this is "
                "said once a minute at most.",
                offset, partition, visible(reason, 200), self.unforeseen,
            )  # fmt: skip
