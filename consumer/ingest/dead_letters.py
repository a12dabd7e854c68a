"""Rejected messages, kept with their reason in the topic `<topic>.dead`.

A dead letter has the original's bytes, key and headers and three headers more: `error`, the reason,
`source`, topic/partition/offset of the original (and /row, of a row of a bulk message, which is
then an Arrow IPC stream of that row), and `timestamp`, the original's in epoch milliseconds. What
the broker or the client does not take is left out: the headers, or else value and key too; then
the third header is `truncated`. A consumer that was killed, or did not hear that a letter was
taken, may write the letter again, so equal letters count once.

The reasons are made where the fault is found: by the rules (event/rules.py, columns.py, times.py),
the decoders (event/json.py, arrow.py) and, for a whole message, decode.py.

Among the letters, in the order of the events, stands who was forgotten, once in each partition:
letters.py, which reads all this.
"""

from __future__ import annotations

from consumer.ingest.decode import Rejected
from consumer.ingest.letters import EVERYWHERE, Forget, mark_forgotten
from consumer.kafka.client import Headers, StreamError, TooLarge
from consumer.kafka.publisher import Publisher, Sent
from consumer.kafka.records import Unreadable
from consumer.settings import ConsumerSettings

REASON_BYTES = 1_000
WHOLE, VALUE, SOURCE = range(3)  # what is kept of the original
TRUNCATED = ("truncated", b"")


class DeadLetters:
    """Publishes rejected messages; connects when the first one comes."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None

    def put(self, noted: list[Rejected | Forget]) -> None:
        """Publish what was rejected, and who was forgotten; wait until all is acknowledged.

        What is acknowledged is taken off the list, so none of it is published again by whoever
        calls this again.

        Raises:
            StreamError: what is left on the list was not acknowledged.
        """
        try:
            self._put_somehow(noted)
        except StreamError:
            self.close()  # this connection may never work again
            raise

    def close(self) -> None:
        """Drop the connection."""
        publisher, self._publisher = self._publisher, None
        if publisher:
            publisher.close()

    def _put_somehow(self, noted: list[Rejected | Forget]) -> None:
        """All together. Of what was refused first one half and then the other; a letter that is
        refused alone without its headers, or else its source alone.
        """
        for parts in (WHOLE, VALUE, SOURCE):
            if not noted:
                return
            try:
                self._put(noted, parts)
            except Exception as error:
                if not _is_refusal(error) or parts == SOURCE:
                    raise
            if len(noted) > 1:
                first, second = noted[: len(noted) // 2], noted[len(noted) // 2 :]
                try:
                    self._put_somehow(first)
                    self._put_somehow(second)
                finally:
                    noted[:] = [*first, *second]

    def _put(self, noted: list[Rejected | Forget], parts: int = WHOLE) -> None:
        """Publish all. What is acknowledged is taken off the list, but not a mark that stands
        behind a letter which was not: the mark must come after the letter.

        Raises:
            Exception: why something was not acknowledged.
        """
        publisher = self._publisher = self._publisher or Publisher(self._settings)
        sent: list[list[Sent]] = []
        failure: Exception | None = None
        for each in noted:
            try:
                sent.append(self._queue(publisher, each, parts))
            except Exception as error:
                failure = error
                if not _is_refusal(error):
                    break
                sent.append([])
        try:
            publisher.flush()
        except StreamError as error:
            failure = failure if failure and not _is_refusal(failure) else error
            self.close()  # also after a refusal the client sends nothing more
        taken = [bool(all_of) and all(each.acknowledged for each in all_of) for all_of in sent]
        taken += [False] * (len(noted) - len(sent))
        first = taken.index(False) if False in taken else len(noted)
        noted[:] = [
            each
            for at, each in enumerate(noted)
            if not taken[at] or (at > first and isinstance(each, Forget))
        ]
        if failure:
            raise failure

    def _queue(self, publisher: Publisher, each: Rejected | Forget, parts: int) -> list[Sent]:
        dead = self._settings.dead_letter_topic
        if isinstance(each, Forget):
            places = {each.partition: each.offset}
            if each.everywhere:
                places[EVERYWHERE] = 0
            mark, headers = mark_forgotten(each.user, places)
            return [
                publisher.send(dead, mark, None, headers, partition)
                for partition in publisher.partitions(dead)
            ]
        message = each.message
        source = f"{self._settings.kafka_topic}/{message.partition}/{message.offset}"
        if each.row is not None:
            source += f"/{each.row}"
        reason = each.reason.encode(errors="replace")[:REASON_BYTES]
        ours = [("error", reason), ("source", source.encode())]
        if isinstance(each.value, Unreadable) or parts == SOURCE:
            return [_send(publisher, dead, None, None, [*ours, TRUNCATED])]
        if parts == VALUE:
            return [_send(publisher, dead, each.value, message.key, [*ours, TRUNCATED])]
        ours.append(("timestamp", str(message.timestamp).encode()))
        return [_send(publisher, dead, each.value, message.key, [*message.headers, *ours])]


def _is_refusal(error: Exception) -> bool:
    """Whether one message is refused as it is: by the broker for its size, or by the client."""
    return isinstance(error, TooLarge) or not isinstance(error, StreamError)


def _send(
    publisher: Publisher, topic: str, value: bytes | None, key: bytes | None, headers: Headers
) -> Sent:
    # The client sends no message that has neither.
    value = b"" if value is None and key is None else value
    # Nor one with a header whose value is null.
    return publisher.send(topic, value, key, [(name, content or b"") for name, content in headers])
