"""Rejected messages back into the topic: once each, in their place, without who was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from consumer.event.holders import without
from consumer.ingest.letters import Letter, Letters
from consumer.kafka.publisher import Publisher
from consumer.settings import ConsumerSettings

TOGETHER = 500  # letters put back in one transaction


def transactional_id(settings: ConsumerSettings) -> str:
    """Who puts letters back, or forgets a user, ends whoever has begun to put letters back."""
    return f"{settings.dead_letter_topic}.reinject"


@dataclass
class Done:
    """How far a re-injection is: letters put back, and those left because of who is in them."""

    put_back: int = 0
    of_forgotten: int = 0


def reinject(
    settings: ConsumerSettings, reason: str | None = None, limit: int | None = None
) -> Iterator[Done]:
    """Publish the originals to the topic again, yielding what is done after each transaction.

    Each goes to the partition and has the timestamp of its source. A letter of a user who was
    forgotten since stays where it is; one of several users is put back without that user.

    An original and the mark that it was put back are one transaction, so on Apache Kafka each is
    put back once, however often this is interrupted, and of two that run at once only one goes on.
    A `forget` ends this as well, so nothing can come back behind it. The embedded broker has no
    transactions; there, a kill between the two may put one back twice.

    Raises:
        StreamError: the broker does not answer or refuses.
    """
    # Before the letters are read: whoever was at it before can no longer change them.
    publisher = Publisher(settings, transactional_id=transactional_id(settings))
    done = Done()
    try:
        partitions = publisher.partitions(settings.kafka_topic)
        chosen = islice(_allowed(Letters(settings), reason, done), limit)
        while block := list(islice(chosen, TOGETHER)):
            with publisher.transaction():
                for letter in block:
                    _put_back(publisher, settings.kafka_topic, partitions, letter)
            done.put_back += len(block)
            yield replace(done)
        yield replace(done)
    finally:
        publisher.close()


def _allowed(found: Letters, reason: str | None, done: Done) -> Iterator[Letter]:
    """The letters that may be put back, without the users who were forgotten."""
    for letter in found.letters(reason):
        if not letter.whole:
            continue
        gone = found.forgotten.among(letter)
        if gone is None or (letter.key or b"").decode(errors="replace") in gone:
            done.of_forgotten += 1
        elif not gone:
            yield letter
        elif (left := without(letter.value or b"", letter.headers, gone)) is None:
            done.of_forgotten += 1
        else:
            yield replace(letter, value=left)


def _put_back(publisher: Publisher, topic: str, partitions: list[int], letter: Letter) -> None:
    partition, _ = letter.place
    publisher.send(
        topic,
        # The client sends no message that has neither value nor key.
        b"" if letter.value is None and letter.key is None else letter.value,
        letter.key,
        [(name, content or b"") for name, content in letter.headers],  # it sends no null header
        partition if partition in partitions else None,
        letter.timestamp,
    )
    mark = [("source", letter.source.encode()), ("reinjected", b"")]
    publisher.send(f"{topic}.dead", b"", None, mark)
