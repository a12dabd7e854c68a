"""What the log says of one user since the edge store was read last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.ingest.decode import Position
from serving.edges.edge import Edges

Places = dict[int, Position]  # partition -> place of an event in it


@dataclass
class Changed:
    """All edges of a user whom the log changed.

    partition, at: the place of the newest event in Kafka; forgotten: the user was forgotten, and
    has not come again; elsewhere: the newest places in other partitions, if there are any.
    """

    items: Edges
    partition: int
    at: Position
    forgotten: bool = False
    elsewhere: Places | None = None

    @property
    def places(self) -> Places:
        """The place of the newest event in each partition."""
        return {**(self.elsewhere or {}), self.partition: self.at}

    def move(self, partition: int, at: Position) -> bool:
        """Note the place of an event; False if an event at or behind this place is known."""
        known = self.places.get(partition)
        if known and at <= known:
            return False
        if partition != self.partition:
            self.elsewhere = (self.elsewhere or {}) | {self.partition: self.at}
            self.elsewhere.pop(partition, None)
        self.partition, self.at = partition, at
        return True


def are_before(places: Places, offsets: Mapping[int, int]) -> bool:
    """Whether all places are before the offsets, partition -> offset."""
    return all(at.offset < offsets.get(partition, 0) for partition, at in places.items())
