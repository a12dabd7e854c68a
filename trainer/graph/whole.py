"""What is true of a whole graph, of which each rank has the edges of its own users."""

from __future__ import annotations

import numpy as np

from trainer.graph.interactions import InteractionGraph


def edges(graph: InteractionGraph) -> int:
    """How many edges there are."""
    return graph.ranks.total(len(graph))


def users(graph: InteractionGraph) -> int:
    """How many users have been seen, those without an edge included."""
    return graph.ranks.total(graph.n_users)


def timed(graph: InteractionGraph) -> bool:
    """Whether the order of any user's edges says something."""
    return graph.ranks.any(bool(graph.timed.any()))


def liked(graph: InteractionGraph) -> bool:
    """Whether any edge has some strength."""
    return graph.ranks.any(bool(graph.strengths.any()))


def strength(graph: InteractionGraph) -> float:
    """Sum of all strengths."""
    return float(graph.ranks.sum(np.array([graph.strengths.sum(dtype=np.float64)]))[0])


def several_times(graph: InteractionGraph) -> bool:
    """Whether the edges have differing times."""
    newest = graph.ranks.most(int(graph.timestamps.max(initial=0)))
    oldest = -graph.ranks.most(-int(graph.timestamps.min(initial=newest)))
    return newest != oldest
