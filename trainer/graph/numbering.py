"""Items get the same numbers on all ranks.

A rank numbers the items of all rows, as one process does (growth.py): so what is drawn for an item
is the same, too. But ranks read at other moments, and may meet items in another order. So before a
training all ranks tell each other which items they have met since the last one, and number these in
one order. An item that has such a number keeps it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.graph.ids import Ids, from_arrays, in_arrays
from trainer.graph.interactions import InteractionGraph


def agree(graph: InteractionGraph, known: int) -> int:
    """Bring the items of a graph to the numbers that all ranks have, in place.

    Args:
        known: so many of the first items have these already.

    Returns:
        How many have them now: all that any rank has met.
    """
    ranks = graph.ranks
    if not ranks.several:
        return graph.n_items
    known = -ranks.most(-known)  # fewer where a rank has begun anew with an empty graph
    own = graph.item_ids.values
    met = from_arrays(*(ranks.joined(of) for of in in_arrays(own[known:])))
    new = met.dictionary_encode().dictionary
    numbers = known + pc.index_in(own[known:], value_set=new).to_numpy().astype(np.int32)
    graph.renumber_items(known, numbers, Ids(pa.concat_arrays([own[:known], new])))
    return graph.n_items
