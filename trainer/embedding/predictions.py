"""Predicted interactions of edges, and how far off they are."""

from __future__ import annotations

import numpy as np
import torch

from trainer.embedding.edges import own
from trainer.embedding.embeddings import Embeddings
from trainer.graph.arrays import Float32s
from trainer.graph.interactions import InteractionGraph


def predictions(
    embeddings: Embeddings, train: InteractionGraph, test: InteractionGraph
) -> Float32s:
    """Predicted interaction of each test edge from the train edges, float32 [test edges]."""
    users = torch.arange(train.n_users)
    vectors = embeddings.user_vectors(users, own(train, users))
    ends = vectors[test.users.astype(np.int64)] * embeddings.outgoing[test.items.astype(np.int64)]
    predicted: Float32s = ends.sum(1).numpy()
    return predicted


def rmse(predicted: Float32s, actual: Float32s) -> float:
    """Root of the mean squared error; both float [edges], in the interaction's unit."""
    return float(np.sqrt(np.mean((predicted.astype(np.float64) - actual) ** 2)))
