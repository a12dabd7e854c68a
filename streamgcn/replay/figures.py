"""Hit rate and NDCG of the lists that users would have read, overall and over time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

K = 20  # places of a list that are looked at
WINDOWS = 40  # of equal numbers of events, over which figures are given
Figures = dict[str, Any]


def rank(items: Iterable[str], wanted: str, owned: Collection[str]) -> int:
    """The place of `wanted` in a list without what the user has, from 0; K if it is not before."""
    at = 0
    for item in items:
        if at == K or item == wanted:
            return at
        at += item not in owned
    return K


class Tally:
    """The places of the items that users took, in the list of each way of serving."""

    def __init__(self, ways: Sequence[str]) -> None:
        self.ways = ways
        self._events: list[int] = []
        self._new: list[bool] = []
        self._places: list[list[int]] = []

    def note(self, event: int, new: bool, places: Mapping[str, int]) -> None:
        """Count an event.

        Args:
            event: the event's number in the log.
            new: whether the user had no edge at the last training.
            places: by way, as `rank` gives them.
        """
        self._events.append(event)
        self._new.append(new)
        self._places.append([places[way] for way in self.ways])

    def by_group(self) -> Figures:
        """Figures of all users, of those known at the last training, and of the others."""
        new, everyone = np.array(self._new, np.bool_), np.ones(len(self._new), np.bool_)
        groups = {"all_users": everyone, "known_users": ~new, "new_users": new}
        return {name: self._of(mask) for name, mask in groups.items()}

    def over_time(self, begin: int, end: int) -> list[Figures]:
        """Figures of windows of equal numbers of events, `until` being the first one after each."""
        events, new = np.array(self._events, np.int64), np.array(self._new, np.bool_)
        edges = np.linspace(begin, end, WINDOWS + 1).astype(np.int64)
        made = []
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            inside = (events >= first) & (events < last)
            made.append({"until": last, **self._of(inside), "new_users": self._of(inside & new)})
        return made

    def _of(self, mask: npt.NDArray[np.bool_]) -> Figures:
        places = np.array(self._places, np.int64).reshape(-1, len(self.ways))[mask]
        made: Figures = {"events": len(places)}
        if len(places):
            hits = places < K
            gains = np.where(hits, 1 / np.log2(places + 2.0), 0.0)
            for number, way in enumerate(self.ways):
                made[way] = {
                    f"hit_rate@{K}": round(float(hits[:, number].mean()), 5),
                    f"ndcg@{K}": round(float(gains[:, number].mean()), 5),
                }
        return made
