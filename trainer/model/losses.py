"""Training objectives as free functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

USERS = 4_096  # whose scores of the sampled items are in memory at a time


class _LogSumExp(torch.autograd.Function):
    """Sum over rows u of d_u log sum_j exp(<u, n_j> / temperature), its gradients made on the way.

    The scores [users, samples] are made once and never whole in memory.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, user_sums: Tensor, sampled: Tensor, temperature: float
    ) -> Tensor:
        total = users.new_zeros(())
        to_users, to_sampled = torch.empty_like(users), torch.zeros_like(sampled)
        for begin in range(0, len(users), USERS):
            block, d = users[begin : begin + USERS], user_sums[begin : begin + USERS]
            scores = block @ sampled.T / temperature
            sums = torch.logsumexp(scores, 1)
            shares = scores.sub_(sums[:, None]).exp_().mul_(d[:, None])
            total += d @ sums
            to_users[begin : begin + USERS] = shares @ sampled / temperature
            to_sampled += shares.T @ block / temperature
        ctx.save_for_backward(to_users, to_sampled)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, None]:
        to_users, to_sampled = ctx.saved_tensors
        return gradients[0] * to_users, None, gradients[0] * to_sampled, None


def softmax(
    users: Tensor, user_sums: Tensor, attraction: Tensor, sampled: Tensor, temperature: float
) -> Tensor:
    """Full-batch sampled softmax over cosines, one term for each edge, times the edge's strength.

    The cosine of user and item against the log-sum-exp over a sample of items that all users share
    (the contrastive objective of recommenders, Wu et al., "On the Effectiveness of Sampled Softmax
    Loss for Item Recommendation", 2022, with every edge in each step).

    Args:
        users: float [users, dim], unit rows.
        user_sums: float [users], the sums of the strengths of each user's edges.
        attraction: float [users, dim], the sums of each user's own unit item rows by strength.
        sampled: float [samples, dim], unit rows of the sampled items.
        temperature: divisor of the cosines.

    Returns:
        Scalar, the sum over edges.
    """
    sums: Tensor = _LogSumExp.apply(users, user_sums, sampled, temperature)  # type: ignore[no-untyped-call]
    return sums - (users * attraction).sum() / temperature


class _NextItems(torch.autograd.Function):
    """As `next_items`, with the gradients made on the way; the scores are written once."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        wanted: Tensor,
        sampled: Tensor,
        log_wanted: Tensor,
        log_sampled: Tensor,
        same: Tensor,
    ) -> Tensor:
        of_wanted = (states * wanted).sum(1) - log_wanted
        scores = torch.addmm(-log_sampled, states, sampled.T).masked_fill_(same, -torch.inf)
        most = torch.maximum(scores.amax(1), of_wanted)
        others, itself = scores.sub_(most[:, None]).exp_(), (of_wanted - most).exp()
        total = others.sum(1) + itself
        scale = 1 / (len(states) * total)
        to_itself = (scale * itself - 1 / len(states))[:, None]
        to_states = (others @ sampled).mul_(scale[:, None]).addcmul_(to_itself, wanted)
        to_sampled = others.T @ (states * scale[:, None])
        ctx.save_for_backward(to_states, to_itself * states, to_sampled)
        return (most + total.log() - of_wanted).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradients[0] * of for of in ctx.saved_tensors), None, None, None


def next_items(
    states: Tensor,
    wanted: Tensor,
    sampled: Tensor,
    log_wanted: Tensor,
    log_sampled: Tensor,
    same: Tensor,
) -> Tensor:
    """Sampled softmax: -log of the share of the wanted item among that one and the sampled ones.

    The logarithm of how often an item is drawn is taken off the item's scores (Yi et al.,
    "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019).

    Args:
        states: float [states, dim], divided by the temperature.
        wanted: float [states, dim], the row of the item that comes next.
        sampled: float [samples, dim], the rows that all states share.
        log_wanted, log_sampled: float [states], [samples].
        same: bool [states, samples], where the sampled item is the wanted one, which counts once.

    Returns:
        Scalar, the mean over states.
    """
    error: Tensor = _NextItems.apply(states, wanted, sampled, log_wanted, log_sampled, same)  # type: ignore[no-untyped-call]
    return error


def bpr(liked: Tensor, other: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): -log sigmoid(liked - other).

    Args:
        liked: float [edges], scores of edges; other: float [edges], of the same users' scores of
            items that were drawn at random.

    Returns:
        Scalar, the mean over edges.
    """
    return -functional.logsigmoid(liked - other).mean()


def mse(predicted: Tensor, interactions: Tensor) -> Tensor:
    """Mean squared error of each edge's interaction; both float [edges]. Returns a scalar."""
    return functional.mse_loss(predicted, interactions)
