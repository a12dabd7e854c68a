"""What the topic has told of one user since the edge store was read last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.ingest.decode import Position
from serving.edges.edge import Edges

Positions = dict[int, Position]  # partition -> place of an event in it


@dataclass
class Changed:
    """All edges of a user whom the topic changed.

    partition, at: the place of the newest event in Kafka; gone: the user was forgotten, or all
    edges of the user have expired, and the user has not come again; elsewhere: the newest places in
    other partitions, if there are any; is_new: whether nothing was known here of the user when the
    first of these events came.
    """

    items: Edges
    partition: int
    at: Position
    gone: bool = False
    elsewhere: Positions | None = None
    is_new: bool = False

    @property
    def positions(self) -> Positions:
        """The place of the newest event in each partition."""
        return {**(self.elsewhere or {}), self.partition: self.at}

    def move(self, partition: int, at: Position) -> bool:
        """Note the place of an event; False if an event at or behind this place is known."""
        known = self.positions.get(partition)
        if known and at <= known:
            return False
        if partition != self.partition:
            self.elsewhere = (self.elsewhere or {}) | {self.partition: self.at}
            self.elsewhere.pop(partition, None)
        self.partition, self.at = partition, at
        return True


def are_before(positions: Positions, offsets: Mapping[int, int]) -> bool:
    """Whether all places are before the offsets, partition -> offset."""
    return all(at.offset < offsets.get(partition, 0) for partition, at in positions.items())
