"""The events that are sent while the freshness of lists is measured.

Nine of ten are of a known user and item, drawn as those of two edges of the shop's graph, so by
power laws; four of five of these items are then of the user's taste, as in the graph. One of twenty
is of one of 1,000 new users, one of twenty is to one of 200 new items.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import synthetic
from benchmarks.synthetic import Sizes

NEW, NEW_USERS, NEW_ITEMS = 0.05, 1_000, 200


class Events:
    """Draws user and item of one event after another.

    has_new_items: whether some of the events are to new items.
    """

    has_new_items = True

    def __init__(self, shop: Path, sizes: Sizes) -> None:
        self._sizes = sizes
        edges = pq.read_table(shop / "edges.parquet")
        self._users, self._items = (
            edges["user_id"].combine_chunks(),
            edges["item_id"].combine_chunks(),
        )
        self._draw = random.Random(1)

    def next(self) -> tuple[str, str]:
        """User and item."""
        draw, n = self._draw, len(self._users)
        user = self._users[draw.randrange(n)].as_py()
        item = self._items[draw.randrange(n)].as_py()
        if draw.random() < synthetic.OF_ONES_TASTE:
            item = synthetic.of_taste(user, item, self._sizes)
        chance = draw.random()
        if chance < NEW:
            user = f"new{draw.randrange(NEW_USERS)}"
        elif chance < 2 * NEW and self.has_new_items:
            item = f"new{draw.randrange(NEW_ITEMS)}"
        return user, item
