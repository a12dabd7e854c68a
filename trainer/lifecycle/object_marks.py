"""Marks of the snapshots in an object store: one object, `live`, holds all of them.

Whatever changes is changed by one conditional put, so two changes at the same time are told
apart: the one that comes second sees what the first one made, and begins again.

A snapshot is deleted in two steps. The marks say that it is dropped; then its files go. To
promote it is a change of the same object: if that came first, the first step finds the marks
changed and looks again; if it comes later, it sees that the snapshot is dropped. So no snapshot
goes live whose files go, however long either of the two was halted in between.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec

from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.marks import LIVE, Changing, Result, Seen, now_ms, version_in
from trainer.lifecycle.storage import VERSION, State, Storage

MOST = 1_000_000  # bytes
TRIES = 20  # of a change, each of which another change has overtaken


class _Content(msgspec.Struct):
    """The object. Fields that are not known are ignored."""

    live: str | None = None
    promoted: dict[str, int] = {}  # version -> when it went live last, epoch milliseconds
    withdrawn: list[str] = []
    dropped: list[str] = []  # whose files are deleted, or will be
    change: str = ""  # differs each time, so that a writer knows what it has written itself


class ObjectMarks:
    """The marks of the snapshots in one place of an object store."""

    def __init__(self, bucket: Storage) -> None:
        self._bucket = bucket

    def live(self) -> str | None:
        """Version that is live, None before the first."""
        return self.now().live()

    def now(self) -> Seen:
        """As they are at this moment."""
        return self._draft()[0]

    def change(self, act: Callable[[Changing], Result]) -> Result:
        """`act`, and again if another was quicker; then the files of what is dropped go.

        Raises:
            StoreAway: the store does not answer, or refuses.
            SnapshotError: as `act`, or others change the marks all the time.
        """
        try:
            for _ in range(TRIES):
                draft, state = self._draft()
                draft.leave_out(self._bucket.folders() if draft.dropped else [])
                before = draft.encoded()
                result = act(draft)
                if draft.encoded() == before or self._bucket.claim(LIVE, draft.renewed(), state):
                    for version in draft.goes:
                        self._bucket.delete_folder(version)
                    return result
        except OSError as error:
            raise StoreAway(f"cannot change {self._bucket}: {error}") from error
        raise SnapshotError(f"{self._bucket.place(LIVE)} is changed too often by others")

    def _draft(self) -> tuple[_Draft, State | None]:
        place = self._bucket.place(LIVE)
        try:
            found = self._bucket.look(LIVE, MOST)
        except OSError as error:
            raise StoreAway(f"cannot read {place}: {error}") from error
        if not found:
            return _Draft(_Content(), place), None
        trouble = ""
        try:
            content = msgspec.json.decode(found.content, type=_Content)
            if content.live is not None:
                version_in(content.live.encode(), place)
        except (msgspec.MsgspecError, SnapshotError):
            content = _Content()
            try:  # as it is in a folder, which may have been copied here
                content.live = version_in(found.content[:100], place)
            except SnapshotError as error:
                trouble = str(error)
        return _Draft(content, place, trouble), found.state


class _Draft:
    """The marks as they are to be."""

    def __init__(self, content: _Content, place: str, trouble: str = "") -> None:
        self._content, self._place, self._trouble = content, place, trouble
        self.goes: list[str] = []  # versions whose files go when this is written

    @property
    def dropped(self) -> list[str]:
        return self._content.dropped

    def leave_out(self, folders: list[str]) -> None:
        """What was dropped and has no files any more needs no note."""
        self._content.dropped = [each for each in self._content.dropped if each in folders]

    def encoded(self) -> bytes:
        return msgspec.json.encode(self._content)

    def renewed(self) -> bytes:
        """The object that is to be written."""
        self._content.change = uuid.uuid4().hex
        return self.encoded()

    def live(self) -> str | None:
        if self._trouble:
            raise SnapshotError(self._trouble)
        return self._content.live

    def promoted_at(self, version: str) -> int | None:
        return self._content.promoted.get(version)

    def is_withdrawn(self, version: str) -> bool:
        return version in self._content.withdrawn

    def promote(self, version: str, at: int | None = None) -> None:
        self._content.promoted[version] = at or now_ms()
        self._content.withdrawn = [each for each in self._content.withdrawn if each != version]
        self.point_to(version)

    def point_to(self, version: str) -> None:
        if version in self.dropped or not VERSION.fullmatch(version):
            raise SnapshotError(f"there is no snapshot {version} any more at {self._place}")
        self._content.live, self._trouble = version, ""

    def withdraw(self, version: str) -> None:
        if not self.is_withdrawn(version):
            self._content.withdrawn.append(version)

    def drop(self, version: str) -> None:
        self.goes.append(version)
        if version not in self.dropped:
            self._content.dropped.append(version)
        self._content.promoted.pop(version, None)
        self._content.withdrawn = [each for each in self._content.withdrawn if each != version]
