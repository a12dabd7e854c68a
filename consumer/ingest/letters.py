"""Dead letters as they are read: which there are, and which of them hold a user who was forgotten.

A letter is known by the digest of its source, time, key and value. The source alone is not enough:
the offsets of a topic that was created anew begin at 0 again. Letters that are equal in all of this
were written twice, and count once.

Beside the letters the topic `<topic>.dead` holds two kinds of marks. One, with the headers `source`
and `reinjected`, says that a letter was put back, and names the letter's digest. In the first
version the digest was empty; such a mark counts for the letters of the source that are not newer
than the mark. The other kind, with the header `forgotten`, has the digest of a user's id, and for
a value the places in the topic at which the user was forgotten: a JSON object, partition -> offset.
Letters of messages from before these places are not put back. The partition EVERYWHERE stands for
all partitions; there the place of the mark among the letters counts, so the mark stands in each
partition of the topic `<topic>.dead`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from consumer.edge.traces import digest
from consumer.event.errors import EventError
from consumer.event.holders import users_in
from consumer.event.times import is_time
from consumer.kafka.client import Headers, Message
from consumer.kafka.topics import read_topic
from consumer.settings import ConsumerSettings

FORGOTTEN = "forgotten"
REINJECTED = "reinjected"
EVERYWHERE = -1
_SOURCE = re.compile(r"[^/]+/[0-9]{1,9}/[0-9]{1,18}(/[0-9]{1,9})?", re.ASCII)
_MILLISECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)
_places = msgspec.json.Decoder(dict[int, int])


class Forget(NamedTuple):
    """A user was forgotten at this place of the topic."""

    user: str
    partition: int
    offset: int
    everywhere: bool = True  # else in this partition alone


@dataclass(frozen=True)
class Letter:
    """A dead letter: the original and why it was rejected."""

    source: str  # topic/partition/offset[/row]
    reason: str
    key: bytes | None
    value: bytes | None
    headers: Headers  # of the original
    whole: bool  # False: the headers, or value and key too, could not be kept
    timestamp: int | None  # of the original, epoch milliseconds; None if none is known
    id: str  # by which it is known, as above
    at: tuple[int, int]  # partition and offset of the letter itself

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the original."""
        _, partition, offset, *_ = self.source.split("/")
        return int(partition), int(offset)

    def users(self) -> set[str] | None:
        """Users that the letter is about: its key and those in its value; None if that is unclear.

        Unclear is a value that is neither JSON nor Arrow; no consumer makes an event of it either.
        """
        key = {self.key.decode(errors="replace")} if self.key else set()
        try:
            return key | users_in(self.value or b"", self.headers)
        except EventError:
            return key if not self.value else None


@dataclass
class Forgotten:
    """Who was forgotten, and where, by the marks in the topic."""

    _marks: dict[str, list[tuple[tuple[int, int], Mapping[int, int]]]] = field(default_factory=dict)

    def note(self, message: Message) -> None:
        """Take up a mark."""
        try:
            places = _places.decode(message.value or b"{}")
        except msgspec.DecodeError:
            return  # another's
        mark = ((message.partition, message.offset), places)
        self._marks.setdefault(_text(message.headers[0][1]), []).append(mark)

    def among(self, letter: Letter) -> set[str] | None:
        """Users of the letter who were forgotten after it; None if it is unclear whose it is."""
        users = letter.users()
        if users is not None:
            return {user for user in users if self._after(letter, digest(user))}
        return None if any(self._after(letter, user) for user in self._marks) else set()

    def _after(self, letter: Letter, user: str) -> bool:
        """Whether the user was forgotten behind the original in the partition of the original.

        A mark that is behind the letter says so too: where the topic of the events was created
        anew, the offsets of the old one may be higher.
        """
        partition, offset = letter.place
        return any(
            offset < places.get(partition, 0)
            or (
                (partition in places or EVERYWHERE in places)
                and letter.at[0] == at[0]
                and letter.at[1] < at[1]
            )
            for at, places in self._marks.get(user, ())
        )


def mark_forgotten(user: str, places: Mapping[int, int]) -> tuple[bytes, Headers]:
    """Value and headers of the mark that a user was forgotten at `places`, partition -> offset."""
    return msgspec.json.encode(places), [(FORGOTTEN, digest(user).encode())]


class Letters:
    """The dead letters of a topic that were not put back, as of when this was made.

    The topic is read twice, so that of a letter only the digest is held in memory: first for the
    marks, then for the letters.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        """Read the marks.

        Raises:
            StreamError: the broker does not answer.
        """
        self._settings = settings
        self.forgotten = Forgotten()
        self._done: set[str] = set()  # the ids of letters that were put back
        self._done_until: dict[str, int] = {}  # source -> time of the newest mark without an id
        # Partition -> offset of the last message that was read. It is read again: from the end
        # mark of a transaction on the client would not come to the end of the topic.
        self._last: dict[int, int] = {}
        self.read_new_marks()
        self._end = dict(self._last)  # what is put back and rejected again comes behind it

    def read_new_marks(self) -> None:
        """Read the marks that were written since they were last read; `forgotten` has them then.

        Raises:
            StreamError: the broker does not answer.
        """
        for message in self._read(self._last):
            self._last[message.partition] = message.offset
            names = [name for name, _ in message.headers]
            if names[-2:] == ["source", REINJECTED]:
                self._note_done(message)
            elif names == [FORGOTTEN]:
                self.forgotten.note(message)

    def letters(self, reason: str | None = None) -> Iterator[Letter]:
        """The letters, oldest first; `reason` is a part of theirs.

        Raises:
            StreamError: the broker does not answer.
        """
        seen = set(self._done)
        for message in self._read():
            letter = _letter(message)
            if letter is None or letter.id in seen:
                continue
            if message.offset > self._end.get(message.partition, -1):
                continue
            if (message.timestamp or 0) <= self._done_until.get(letter.source, -2):
                continue
            seen.add(letter.id)
            if reason is None or reason in letter.reason:
                yield letter

    def holding(self, user: str) -> int:
        """Number of letters that hold the user and are from before it was forgotten.

        Raises:
            StreamError: the broker does not answer.
        """
        return sum(user in (self.forgotten.among(letter) or ()) for letter in self.letters())

    def _note_done(self, message: Message) -> None:
        (_, source), (_, letter) = message.headers[-2:]
        if letter:
            self._done.add(_text(letter))
        else:
            newest = max(message.timestamp or 0, self._done_until.get(_text(source), 0))
            self._done_until[_text(source)] = newest

    def _read(self, starts: Mapping[int, int] | None = None) -> Iterator[Message]:
        return read_topic(self._settings, self._settings.dead_letter_topic, starts)


def mark_put_back(letter: Letter) -> Headers:
    """Headers of the mark that a letter was put back."""
    return [("source", letter.source.encode()), (REINJECTED, letter.id.encode())]


def _letter(message: Message) -> Letter | None:
    names = [name for name, _ in message.headers]
    for ours in (["error", "source", "timestamp"], ["error", "source", "truncated"],
                 ["error", "source"]):  # fmt: skip
        if names[-len(ours) :] != ours:
            continue
        reason, source, *more = (_text(value) for _, value in message.headers[-len(ours) :])
        if not _SOURCE.fullmatch(source):
            return None  # another's
        time = _time(more[0]) if "timestamp" in ours else None
        return Letter(
            source=source,
            reason=reason,
            key=message.key,
            value=message.value,
            headers=message.headers[: -len(ours)],
            whole="truncated" not in ours,
            timestamp=time,
            id=_id(source, time, message.key, message.value),
            at=(message.partition, message.offset),
        )
    return None


def _id(source: str, time: int | None, key: bytes | None, value: bytes | None) -> str:
    # With the length of the key, so that no part can pass for a part of another.
    about = f"{source} {time} {None if key is None else len(key)}\n"
    return hashlib.sha256(about.encode() + (key or b"") + (value or b"")).hexdigest()


def _time(text: str) -> int | None:
    """Epoch milliseconds, None where that is no time of an event: Kafka could refuse it."""
    milliseconds = int(text) if _MILLISECONDS.fullmatch(text) else 0
    return milliseconds if is_time(milliseconds) else None


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
