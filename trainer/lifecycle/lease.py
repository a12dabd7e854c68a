"""One trainer at a time writes to a MODEL_STORE: it holds a file there and renews it.

The file says who holds it. Another trainer takes it over when it was not renewed for EXPIRES
seconds by the other's own clock, so clocks need not agree; or at once, where the two run on one
machine and the holder's process is gone. An object store gives it to one alone; in a folder, who
has written it looks a second time.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime

import msgspec

from process.errors import StreamGCNError
from process.settings import SettingsError
from trainer.lifecycle.holder import Holder, machine, parsed, started
from trainer.lifecycle.storage import Found, State, Storage

LEASE = "trainer.lease"
BEAT = 5.0  # seconds between two renewals
EXPIRES = 60.0
SETTLE = 1.0  # seconds in which another that takes it at the same time would show
MOST = 4_096  # bytes of the file that are read

log = logging.getLogger("trainer")


class LeaseLost(StreamGCNError):
    """Another trainer has taken the MODEL_STORE over."""


class Lease:
    """Take it with `take`; a thread renews it until `release`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._place = storage.place(LEASE)
        self._me = Holder(
            uuid.uuid4().hex, socket.gethostname(), os.getpid(),
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), machine(), started(os.getpid()),
        )  # fmt: skip
        self._held = False
        self._seen: tuple[bytes, State] | None = None  # content and state,
        self._seen_at = 0.0  # and since when it has been so
        self._told = ""  # the holder that the log named last
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether it was held when it was looked at last."""
        return self._held

    def take(self) -> bool:
        """Take the lease if it is free or has expired; a line of the log names another holder.

        Raises:
            OSError: the storage cannot be read or written.
            SettingsError: an object store does not check the conditions of a write.
        """
        if self._held:
            try:
                self.confirm()
                return True
            except LeaseLost:
                pass  # who has it is told below
        found = self._read()
        holder = parsed(found) if found else None
        if found and not self._is_free(found, holder):
            named = str(holder or "it does not say which")
            if self._told != named:
                self._told = named
                log.warning("Another trainer holds %s: %s; standing by.", self._place, named)
            return False
        if not self._claim(found):
            return False
        self._held, self._told = True, ""
        if found and not (holder and holder.id == self._me.id):
            log.warning(
                "Took over %s from the trainer %s, which has ended or did not write there for "
                "%.0f s.",
                self._place, holder or "unknown", EXPIRES,
            )  # fmt: skip
        if not self._thread:
            self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
            self._thread.start()
        return True

    def confirm(self) -> None:
        """See that no other has it, before something is written.

        Raises:
            LeaseLost: another has it.
            OSError: the storage cannot be read or written.
        """
        found = self._read()
        if found is None:  # the whole folder may have been deleted
            self._storage.claim(LEASE, self._said(), None)
            found = self._read()
        if not self._owns(found):
            self._held = False
            raise LeaseLost(f"another trainer has taken {self._place} over")

    def release(self) -> None:
        """Give it back, so that another can take it at once."""
        self._end.set()
        if self._thread:
            self._thread.join()
        try:
            if self._held and self._owns(self._read()):
                self._storage.delete(LEASE)
        except OSError:
            pass  # it expires
        self._held = False

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._end.wait(BEAT):
            began = time.monotonic()
            if not self._held:
                renewed = began
                continue
            try:
                self._held = self._renew()
                renewed = began
            except OSError:
                self._held = time.monotonic() - renewed < EXPIRES

    def _renew(self) -> bool:
        found = self._read()
        if not found or not self._owns(found):
            return False
        # Where another was quicker, the next beat sees who.
        self._storage.renew(LEASE, self._said(), found.state)
        return True

    def _claim(self, found: Found | None) -> bool:
        if not self._storage.claim(LEASE, self._said(), found.state if found else None):
            return False
        if self._storage.claims_are_sure:
            if self._storage.claim(LEASE, self._said(), None):  # though there is one now
                raise SettingsError(
                    f"MODEL_STORE={self._storage} is refused: the object store ignores the "
                    "condition If-None-Match of a write, so two trainers could write at once; take "
                    "one that knows conditional writes"
                )
            return True
        return not self._end.wait(SETTLE) and self._owns(self._read())

    def _said(self) -> bytes:
        self._me.beat += 1
        return msgspec.json.encode(self._me)

    def _owns(self, found: Found | None) -> bool:
        holder = parsed(found) if found else None
        return holder is not None and holder.id == self._me.id

    def _is_free(self, found: Found, holder: Holder | None) -> bool:
        now = time.monotonic()
        if (found.content, found.state) != self._seen:
            self._seen, self._seen_at = (found.content, found.state), now
        if holder and (holder.id == self._me.id or holder.is_gone()):
            return True
        return now - self._seen_at > EXPIRES

    def _read(self) -> Found | None:
        return self._storage.look(LEASE, MOST)


def holder(storage: Storage) -> Holder | None:
    """Who holds the lease, None if nobody does or it has expired by this clock."""
    try:
        found = storage.look(LEASE, MOST)
    except OSError:
        return None
    named = parsed(found) if found else None
    fresh = found is not None and time.time() - found.changed_at < EXPIRES
    return named if named and fresh and not named.is_gone() else None
