"""Whether Redis has kept what was written to it.

A random word stands at the key `generation`, written where there is none. Where it is another word,
someone found none: Redis was flushed, or lost what was written last. An evicting Redis may throw
the word away too. That is no flush: then no more keys are gone than it says it has evicted, and the
old word is put back.
"""

from __future__ import annotations

from uuid import uuid4

from serving.redis.server import Server

SLACK = 0.01  # share of the keys that others may have deleted meanwhile


class Life:
    """What was seen of it last."""

    def __init__(self) -> None:
        self._word = b""
        self.server: Server | None = None

    def word_after(self, found: bytes | None, server: Server | None) -> bytes:
        """The word to write where there is none.

        Args:
            found: what stood there.
            server: what Redis told of itself after that.
        """
        before, self.server = self.server, server
        if found is None and self._word and _evicted_alone(before, server):
            return self._word
        return found or uuid4().hex.encode()

    def generation(self, word: bytes) -> str:
        """What stands for all that Redis holds, of the word that stands there now."""
        self._word = word
        told = word.decode(errors="replace")
        return f"{told} {self.server.runs}" if self.server else told


def _evicted_alone(before: Server | None, now: Server | None) -> bool:
    """Whether what is gone since `before` was evicted or has expired."""
    if not before or not now or now.runs != before.runs or now.evicted <= before.evicted:
        return False
    evicted, expired = now.evicted - before.evicted, now.expired - before.expired
    return before.keys - now.keys <= evicted + expired + SLACK * before.keys
