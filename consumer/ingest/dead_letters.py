"""Rejected messages, kept with their reason in the topic `<topic>.dead`.

A dead letter has the original's bytes, key and headers and three headers more: `error`, the reason,
`source`, topic/partition/offset of the original (and /row, of a row of a bulk message, which is
then an Arrow IPC stream of that row), and `timestamp`, the original's in epoch milliseconds. What
the broker or the client does not take is left out: the headers, or else value and key too; then
the third header is `truncated`. A consumer that was killed may write a letter again, so a source
counts once.

The reasons are made where the fault is found: by the rules (event/rules.py, columns.py, times.py),
the decoders (event/json.py, arrow.py) and, for a whole message, decode.py.

Among the letters, in the order of the events, stands who was forgotten: letters.py, which reads
all this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from consumer.ingest.decode import Rejected
from consumer.ingest.letters import EVERYWHERE, Forget, mark_forgotten
from consumer.kafka.client import Headers, StreamError, TooLarge
from consumer.kafka.publisher import Publisher
from consumer.kafka.records import Unreadable
from consumer.settings import ConsumerSettings

REASON_BYTES = 1_000
WHOLE, VALUE, SOURCE = range(3)  # what is kept of the original
TRUNCATED = ("truncated", b"")


class DeadLetters:
    """Publishes rejected messages; connects when the first one comes."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self._topic = settings.kafka_topic
        self._publisher: Publisher | None = None

    def put(self, noted: Sequence[Rejected | Forget]) -> None:
        """Publish what was rejected, and who was forgotten; wait until all is acknowledged.

        Raises:
            StreamError: one was not; put all of them again.
        """
        if not noted:
            return
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

    def _put_somehow(self, noted: Sequence[Rejected | Forget]) -> None:
        """All together, or one by one: whole, or else without its headers, or else its source."""
        try:
            self._put(noted)
            return
        except Exception as error:  # a letter is too large, or the client refuses it for a reason
            if isinstance(error, StreamError) and not isinstance(error, TooLarge):
                raise
        for each in noted:
            for parts in (WHOLE, VALUE, SOURCE):
                try:
                    self._put([each], parts)
                    break
                except Exception as error:
                    fatal = isinstance(error, StreamError) and not isinstance(error, TooLarge)
                    if fatal or parts == SOURCE:
                        raise

    def _put(self, noted: Iterable[Rejected | Forget], parts: int = WHOLE) -> None:
        publisher = self._publisher = self._publisher or Publisher(self._settings)
        dead = self._settings.dead_letter_topic
        for each in noted:
            if isinstance(each, Forget):
                places = {each.partition: each.offset}
                if each.everywhere:
                    places[EVERYWHERE] = 0
                value, headers = mark_forgotten(each.user, places)
                _send(publisher, dead, value, None, headers)
                continue
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
                ours.append(("timestamp", str(message.timestamp).encode()))
                _send(publisher, dead, each.value, message.key, [*message.headers, *ours])
        publisher.flush()


def _send(
    publisher: Publisher, topic: str, value: bytes | None, key: bytes | None, headers: Headers
) -> None:
    # The client sends no message that has neither.
    value = b"" if value is None and key is None else value
    # Nor one with a header whose value is null.
    publisher.send(topic, value, key, [(name, content or b"") for name, content in headers])
