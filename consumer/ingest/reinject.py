"""Rejected messages back into the topic: once each, in their place, without who was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from consumer.event.holders import without
from consumer.ingest.decode import headers_size
from consumer.ingest.letters import Forgotten, Letter, Letters, mark_put_back
from consumer.kafka.publisher import Publisher
from consumer.settings import ConsumerSettings

TOGETHER = 500  # letters put back in one transaction, at most
TOGETHER_BYTES = 16 * 1024 * 1024  # of these letters, at which no further one is taken


def transactional_id(settings: ConsumerSettings) -> str:
    """Who puts letters back, or forgets a user, ends whoever has begun to put letters back."""
    return f"{settings.dead_letter_topic}.reinject"


@dataclass
class Done:
    """How far a re-injection is: letters put back, and those left where they are, by the cause."""

    put_back: int = 0
    of_forgotten: int = 0  # or it cannot be told whose they are
    truncated: int = 0  # the letter does not have all of the original


def reinject(
    settings: ConsumerSettings, reason: str | None = None, limit: int | None = None
) -> Iterator[Done]:
    """Publish the originals to the topic again, yielding what is done after each transaction.

    Each goes to the partition and has the timestamp of its source. A letter of a user who was
    forgotten since stays where it is; one of several users is put back without that user. A
    letter that does not have all of the original stays too.

    An original and the mark that it was put back are one transaction, so on Apache Kafka each is
    put back once, however often this is interrupted, and of two that run at once only one goes on.
    The command `forget` ends this as well, so nothing can come back behind it. A `forget` event of
    another client counts once the consumer has read it, as the marks are read again before each
    transaction; of a user whom such an event forgets within the consumer's lag, or within the
    transaction, a letter can still be put back. The embedded broker has no transactions; there, a
    kill between the two may put one back twice.

    Raises:
        StreamError: the broker does not answer or refuses.
    """
    # Before the letters are read: whoever was at it before can no longer change them.
    publisher = Publisher(settings, transactional_id=transactional_id(settings))
    done = Done()
    try:
        partitions = publisher.partitions(settings.kafka_topic)
        found = Letters(settings)
        allowed = _allowed(_whole(found.letters(reason), done), found.forgotten, done)
        for taken in _blocks(islice(allowed, limit)):
            found.read_new_marks()
            block = list(_allowed(taken, found.forgotten, done))
            if not block:
                continue
            with publisher.transaction():
                for letter in block:
                    _put_back(publisher, settings, partitions, letter)
            done.put_back += len(block)
            yield replace(done)
        yield replace(done)
    finally:
        publisher.close()


def _blocks(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Letters to be put back together: TOGETHER of them, or fewer that have TOGETHER_BYTES."""
    block: list[Letter] = []
    size = 0
    for letter in letters:
        block.append(letter)
        size += len(letter.key or b"") + len(letter.value or b"") + headers_size(letter.headers)
        if len(block) == TOGETHER or size >= TOGETHER_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _whole(letters: Iterable[Letter], done: Done) -> Iterator[Letter]:
    """The letters that have all of the original."""
    for letter in letters:
        if letter.whole:
            yield letter
        else:
            done.truncated += 1


def _allowed(letters: Iterable[Letter], forgotten: Forgotten, done: Done) -> Iterator[Letter]:
    """The letters that may be put back, without the users who were forgotten."""
    for letter in letters:
        gone = forgotten.among(letter)
        if gone is None or (letter.key or b"").decode(errors="replace") in gone:
            done.of_forgotten += 1
        elif not gone:
            yield letter
        elif (left := without(letter.value or b"", letter.headers, gone)) is None:
            done.of_forgotten += 1
        else:
            yield replace(letter, value=left)


def _put_back(
    publisher: Publisher, settings: ConsumerSettings, partitions: list[int], letter: Letter
) -> None:
    partition, _ = letter.place
    publisher.send(
        settings.kafka_topic,
        # The client sends no message that has neither value nor key.
        b"" if letter.value is None and letter.key is None else letter.value,
        letter.key,
        [(name, content or b"") for name, content in letter.headers],  # it sends no null header
        partition if partition in partitions else None,
        letter.timestamp,
    )
    publisher.send(settings.dead_letter_topic, b"", None, mark_put_back(letter))
