"""Training objectives as free functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softmax(
    users: Tensor,
    items: Tensor,
    attraction: Tensor,
    negatives: Tensor,
    temperature: float,
) -> Tensor:
    """Full-batch sampled softmax over cosines, one term a user.

    The mean cosine of the user's own items against the log-sum-exp over a sample of items that all
    users share (the contrastive objective of recommenders, Wu et al., "On the Effectiveness of
    Sampled Softmax Loss for Item Recommendation", 2022, with every user in each step).

    Args:
        users: float [users, dim], unit rows.
        items: float [items, dim], unit rows.
        attraction: float [users, dim], the mean of each user's own unit item rows.
        negatives: int64 [samples], numbers of the sampled items.
        temperature: divisor of the cosines.

    Returns:
        Scalar, the mean over users.
    """
    own = (users * attraction).sum(1)
    return (
        torch.logsumexp(users @ items[negatives].T / temperature, dim=1) - own / temperature
    ).mean()


def mse(predicted: Tensor, interactions: Tensor) -> Tensor:
    """Mean squared error of each edge's interaction; both float [edges]. Returns a scalar."""
    return functional.mse_loss(predicted, interactions)
