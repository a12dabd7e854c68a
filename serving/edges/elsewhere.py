"""Users whose rows come by partitions that other processes read.

A user belongs to the process that reads the partition of the user's newest row. Where keys move to
other partitions, or there are no keys, only the edge store tells both processes which row that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from consumer.edge.store import Watermark
from serving.edges.changes import Changed, are_before


class Seen(NamedTuple):
    """What rows of the edge store tell of users with rows of partitions that others read.

    partitions: user -> partition of the newest of these rows, whoever reads it; watermark: how far
    the store was looked at.
    """

    partitions: Mapping[str, int]
    watermark: Watermark


class _Place(NamedTuple):
    partition: int
    stamp: int  # of the look that found it, epoch microseconds


class Elsewhere:
    """What was seen of such users past the stored edges."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._watermark = Watermark()  # of the last look

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, user: str) -> bool:
        return user in self._places

    def see(self, seen: Seen) -> None:
        """Note what a look has found."""
        self._watermark = seen.watermark
        stamp = seen.watermark.stamp or 0
        places = {p: _Place(p, stamp) for p in set(seen.partitions.values())}
        self._places |= {user: places[p] for user, p in seen.partitions.items()}

    def partition(self, user: str, change: Changed | None, log: int) -> int | None:
        """The partition of the user's newest row; None where what is known here is newer.

        Args:
            change: what the topic has told of the user here, in the log of this number.
        """
        place = self._places.get(user)
        if place is None:
            return None
        offsets = self._watermark.offsets(log)
        is_newest = change is None or are_before(change.positions, offsets)
        return place.partition if is_newest else None

    def drop_stored(self, watermark: Watermark) -> None:
        """Drop what the stored edges, which were read up to the watermark, tell by now."""
        stamp = watermark.stamp or 0
        self._places = {u: place for u, place in self._places.items() if place.stamp > stamp}

    def clear(self) -> None:
        """Other partitions are read here now, and the stored edges are read to their end."""
        self._places.clear()
