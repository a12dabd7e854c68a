"""What a serving process tells the others of its users, where several share the partitions.

It is the value of the lowest partition that the process has; those of its other partitions are
empty. So who takes a partition over takes the place of what the process before has told, and no
user is counted twice for longer than it takes all processes to write once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from process.errors import StreamGCNError
from serving.edges.popularity import Counted
from serving.items.shared_likers import Liker, Time

FORMAT = 1
Count = Annotated[float, msgspec.Meta(ge=0, le=1e30)]


class ShareUnreadable(StreamGCNError):
    """The share of a partition is none."""


class _Format(msgspec.Struct):
    format: int


class Share(msgspec.Struct):
    """One value.

    items, counts: popular items among the users of the process, and their decayed numbers of edges
    as of `latest`, epoch milliseconds. model: the version that `likers`, users who like items that
    it has not seen, are of. newest: epoch milliseconds of the newest edge.
    """

    format: int
    items: list[str]
    counts: list[Count]
    latest: Time
    model: str
    likers: list[Liker]
    newest: Time

    @property
    def popular(self) -> Counted:
        """The popular items."""
        return Counted(self.items, np.array(self.counts, np.float64), self.latest)


def written(popular: Counted, model: str, likers: Sequence[Liker], newest: int) -> bytes:
    """The value of a process."""
    counts, latest = popular.counts.tolist(), popular.latest
    share = Share(FORMAT, list(popular.items), counts, latest, model, list(likers), newest)
    return msgspec.json.encode(share)


def read(value: bytes) -> Share:
    """The share that a value is.

    Raises:
        ShareUnreadable: it is none, or of another version of StreamGCN.
    """
    try:
        made_by = msgspec.json.decode(value, type=_Format).format
        if made_by != FORMAT:
            raise ShareUnreadable(f"it has format {made_by}, and this process reads {FORMAT}")
        share = msgspec.json.decode(value, type=Share)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ShareUnreadable(str(error)) from None
    if len(share.items) != len(share.counts):
        raise ShareUnreadable("items and counts differ in length")
    return share
