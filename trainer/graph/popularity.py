"""What is popular of late: the list for those of whom nothing is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.graph.interactions import InteractionGraph

HALF_LIFE_MS = 7 * 86_400_000  # in which what an edge counts for its item halves


def recent(graph: InteractionGraph) -> npt.NDArray[np.float64]:
    """How popular each item is, float64 [items]: the edges of some strength, the newest count 1."""
    liked = graph.weights > 0
    newest = graph.ranks.most(int(graph.timestamps.max(initial=0)))
    age = (newest - graph.timestamps[liked]) / HALF_LIFE_MS
    counts = np.bincount(graph.items[liked], np.exp2(-age), graph.n_items)
    return graph.ranks.sum(counts.astype(np.float64))
