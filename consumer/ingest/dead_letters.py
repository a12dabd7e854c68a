"""Rejected messages, kept with their reason in the topic `<topic>.dead`, and taken back from there.

A dead letter has the original's bytes, key and headers and two headers more: `error`, the reason,
and `source`, topic/partition/offset of the original (and /row, of a row of a bulk message, which is
then an Arrow IPC stream of that row). What the broker or the client does not take is left out, and
the header `truncated` says so: the headers, or else value and key too. A consumer that was killed
may write a letter again, so a source counts once. A letter that was put back is followed by a mark,
an empty message with the headers `source` and `reinjected`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from consumer.ingest.decode import Rejected
from consumer.kafka.client import Headers, Message, StreamError, TooLarge
from consumer.kafka.publisher import Publisher
from consumer.kafka.records import Unreadable
from consumer.kafka.topics import read_topic
from consumer.settings import ConsumerSettings

TOGETHER = 500  # letters put back in one transaction
REASON_BYTES = 1_000
WHOLE, VALUE, SOURCE = range(3)  # what is kept of the original
TRUNCATED = ("truncated", b"")


@dataclass(frozen=True)
class Letter:
    """A dead letter: the original and why it was rejected."""

    source: str  # topic/partition/offset[/row]
    reason: str
    key: bytes | None
    value: bytes | None
    headers: Headers  # of the original
    whole: bool  # False: parts of the original could not be kept, only the source tells them


class DeadLetters:
    """Publishes rejected messages; connects when the first one comes."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._topic = settings.kafka_topic
        self._publisher: Publisher | None = None

    def put(self, rejected: Sequence[Rejected]) -> None:
        """Publish them and wait until all are acknowledged.

        Raises:
            StreamError: one was not; put all of them again.
        """
        if not rejected:
            return
        try:
            self._put_somehow(rejected)
        except StreamError:
            self.close()  # this connection may never work again
            raise

    def close(self) -> None:
        """Drop the connection."""
        publisher, self._publisher = self._publisher, None
        if publisher:
            publisher.close()

    def _put_somehow(self, rejected: Sequence[Rejected]) -> None:
        """All together, or one by one: whole, or else without its headers, or else its source."""
        try:
            self._put(rejected)
            return
        except Exception as error:  # a letter is too large, or the client refuses it for a reason
            if isinstance(error, StreamError) and not isinstance(error, TooLarge):
                raise
        for each in rejected:
            for parts in (WHOLE, VALUE, SOURCE):
                try:
                    self._put([each], parts)
                    break
                except Exception as error:
                    fatal = isinstance(error, StreamError) and not isinstance(error, TooLarge)
                    if fatal or parts == SOURCE:
                        raise

    def _put(self, rejected: Iterable[Rejected], parts: int = WHOLE) -> None:
        publisher = self._publisher = self._publisher or Publisher(self._settings)
        dead = f"{self._topic}.dead"
        for each in rejected:
            message = each.message
            source = f"{self._topic}/{message.partition}/{message.offset}"
            if each.row is not None:
                source += f"/{each.row}"
            reason = each.reason.encode(errors="replace")[:REASON_BYTES]
            ours = [("error", reason), ("source", source.encode())]
            if isinstance(each.value, Unreadable) or parts == SOURCE:
                _send(publisher, dead, None, None, [*ours, TRUNCATED])
            elif parts == VALUE:
                _send(publisher, dead, each.value, message.key, [*ours, TRUNCATED])
            else:
                _send(publisher, dead, each.value, message.key, [*message.headers, *ours])
        publisher.flush()


def letters(settings: ConsumerSettings, reason: str | None = None) -> Iterator[Letter]:
    """Dead letters that were not put back, oldest first; `reason` is a part of theirs.

    Raises:
        StreamError: the broker does not answer.
    """
    found: dict[str, Letter] = {}
    done: set[str] = set()
    for message in read_topic(settings, f"{settings.kafka_topic}.dead"):
        names = [name for name, _ in message.headers]
        if names[-2:] == ["source", "reinjected"]:
            done.add((message.headers[-2][1] or b"").decode(errors="replace"))
        elif names[-3:] == ["error", "source", "truncated"] or names[-2:] == ["error", "source"]:
            letter = _letter(message)
            found.setdefault(letter.source, letter)
    wanted = (letter for source, letter in found.items() if source not in done)
    return (letter for letter in wanted if reason is None or reason in letter.reason)


def reinject(
    settings: ConsumerSettings, reason: str | None = None, limit: int | None = None
) -> Iterator[int]:
    """Publish the originals to the topic again, yielding how many were after each transaction.

    An original and the mark that it was put back are one transaction, so on Apache Kafka each is
    put back once, however often this is interrupted, and of two that run at once only one goes on.
    The embedded broker has no transactions; there, a kill between the two may put one back twice.

    Raises:
        StreamError: the broker does not answer or refuses.
    """
    topic = settings.kafka_topic
    # Before the letters are read: whoever was at it before can no longer change them.
    publisher = Publisher(settings, transactional_id=f"{topic}.dead.reinject")
    try:
        chosen = islice((each for each in letters(settings, reason) if each.whole), limit)
        done = 0
        while block := list(islice(chosen, TOGETHER)):
            with publisher.transaction():
                for letter in block:
                    _send(publisher, topic, letter.value, letter.key, letter.headers)
                    mark = [("source", letter.source.encode()), ("reinjected", b"")]
                    _send(publisher, f"{topic}.dead", None, None, mark)
            done += len(block)
            yield done
    finally:
        publisher.close()


def _letter(message: Message) -> Letter:
    whole = message.headers[-1][0] == "source"
    at = -2 if whole else -3
    ours = [value or b"" for _, value in message.headers[at:]]
    reason, source = (value.decode(errors="replace") for value in ours[:2])
    return Letter(source, reason, message.key, message.value, message.headers[:at], whole)


def _send(
    publisher: Publisher, topic: str, value: bytes | None, key: bytes | None, headers: Headers
) -> None:
    # The client sends no message that has neither.
    value = b"" if value is None and key is None else value
    # Nor one with a header whose value is null.
    publisher.send(topic, value, key, [(name, content or b"") for name, content in headers])
