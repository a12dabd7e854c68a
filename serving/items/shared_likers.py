"""What processes tell each other of users who like new items: their edges, and no ids of users.

A new item is placed by the users who like it, and each process holds some of them. So each tells
the others the edges of its own ones, as the fold-in needs them, and all place an item by the same
users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from heapq import nlargest
from typing import Annotated

import msgspec

from serving.edges.edge import Edge, Edges
from serving.edges.user_edges import UserEdges
from serving.items.likers import Likers
from serving.items.served_model import ServedModel

MOST_ITEMS = 2_000  # new items whose users are told, those first that most users like
MOST_NUMBERS = 50_000  # edges, and numbers of rows, of all users that are told; some 30 bytes each
LAST_MS = 7_258_118_400_000  # the year 2200, epoch milliseconds
Time = Annotated[int, msgspec.Meta(ge=-LAST_MS, le=LAST_MS)]
Number = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]


class Liker(msgspec.Struct):
    """A user who likes new items.

    edges: item -> time in epoch milliseconds and weight of each edge; row: what the model has
    learned of the user beyond the edges, if anything.
    """

    edges: dict[str, tuple[Time, Number]]
    row: list[Number] = []

    def ordered(self) -> Edges:
        """The edges in their order."""
        return {item: Edge(*edge) for item, edge in self.edges.items()}


def told(likers: Likers, edges: UserEdges, model: ServedModel) -> list[Liker]:
    """The users of this process who like new items, as far as others are told of them."""
    chosen: dict[str, Liker] = {}
    n_numbers = 0
    for item in nlargest(MOST_ITEMS, likers.of, key=lambda item: len(likers.of[item])):
        for user in reversed(likers.of[item]):
            if user in chosen:
                continue
            own = edges.weights(user)
            if item not in own or own[item].weight <= 0:
                continue
            row = model.row(user)
            n_numbers += len(own) + len(row)
            if n_numbers > MOST_NUMBERS:
                return list(chosen.values())
            chosen[user] = Liker(
                {item: (edge.timestamp, edge.weight) for item, edge in own.items()}, row
            )
    return list(chosen.values())


def by_item(likers: Sequence[Liker], known: Set[str]) -> dict[str, list[Liker]]:
    """The users who like each item that is not `known`."""
    found: dict[str, list[Liker]] = defaultdict(list)
    for liker in likers:
        for item, (_, weight) in liker.edges.items():
            if weight > 0 and item not in known:
                found[item].append(liker)
    return dict(found)
