"""User and item biases of explicit ratings: the baseline, and where the gcn's layers begin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.graph.arrays import Float32s, Float64s
from trainer.graph.interactions import InteractionGraph

DAMPING = 5.0  # edges of bias 0 that each node counts in addition
ROUNDS = 10


def user_item_biases(
    graph: InteractionGraph, damping: float = DAMPING
) -> tuple[Float64s, Float64s]:
    """Biases of users [users] and items [items] about the mean interaction.

    Damped means in turn (Koren, "Factor in the Neighbors", 2010, the baseline estimates).
    """
    mean = float(graph.weights.mean())
    users, items = np.zeros(graph.n_users), np.zeros(graph.n_items)
    for _ in range(ROUNDS):
        items = _damped(graph.items, graph.weights - mean - users[graph.users], len(items), damping)
        users = _damped(graph.users, graph.weights - mean - items[graph.items], len(users), damping)
    return users, items


def predicted_by_biases(
    train: InteractionGraph, test: InteractionGraph, damping: float = DAMPING
) -> Float32s:
    """mean + bias_u + bias_i for the test edges, float32 [test edges]."""
    users, items = user_item_biases(train, damping)
    predicted = float(train.weights.mean()) + users[test.users] + items[test.items]
    return predicted.astype(np.float32)


def _damped(nodes: npt.NDArray[np.int32], residuals: Float64s, n: int, damping: float) -> Float64s:
    sums = np.bincount(nodes, residuals, minlength=n)
    means: Float64s = sums / np.maximum(np.bincount(nodes, minlength=n) + damping, 1e-12)
    return means
