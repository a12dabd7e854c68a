"""One number for each edge: to sort, to find and to draw edges by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.graph.arrays import Bools, Int32s, Int64s


def keys_of(users: Int32s, items: Int32s) -> Int64s:
    """One number for each edge, by which they sort by user, then item; int64 [edges]."""
    return (users.astype(np.int64) << 32) | items


def hashed(keys: Int64s) -> npt.NDArray[np.uint64]:
    """Numbers that look random, the same for the same key; uint64 [keys].

    The mixing steps of splitmix64 (Steele, Lea & Flood, OOPSLA 2014).
    """
    made = keys.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        made = (made ^ (made >> np.uint64(shift))) * np.uint64(factor)
    mixed: npt.NDArray[np.uint64] = made ^ (made >> np.uint64(31))
    return mixed


def places_in(sorted_keys: Int64s, wanted: Int64s) -> Int64s:
    """Where those of the `wanted` keys are that are among `sorted_keys`: int64, ascending, no place
    twice.

    Args:
        sorted_keys, wanted: ascending; of `sorted_keys` none twice.
    """
    at = np.searchsorted(sorted_keys, wanted)
    at = at[: np.searchsorted(at, len(sorted_keys))]  # the others are behind all keys
    at = at[sorted_keys[at] == wanted[: len(at)]]
    first = np.ones(len(at), np.bool_)
    first[1:] = at[1:] != at[:-1]
    places: Int64s = at[first]
    return places


def contained(sorted_keys: Int64s, keys: Int64s) -> Bools:
    """Mask of the `keys` that are among `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), np.bool_)
    at = np.searchsorted(sorted_keys, keys)
    at[at == len(sorted_keys)] = 0
    found: Bools = sorted_keys[at] == keys
    return found
