"""Sums over ranks within a training by gradients: each rank has the tables of its own users.

What items gather from users is summed over the ranks, forward and backward, and so are the
gradients of the tables that all ranks have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.ranks import Ranks


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum_tensor(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        return ranks.sum_tensor(gradients[0].clone()), None


def summed(part: Tensor, ranks: Ranks) -> Tensor:
    """The sum over all ranks, differentiable: its gradient is the sum of theirs."""
    if not ranks.several:
        return part
    total: Tensor = _Summed.apply(part, ranks)  # type: ignore[no-untyped-call]
    return total


def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Add up the gradients of parameters that all ranks have, in place."""
    for parameter in parameters:
        if ranks.several and parameter.grad is not None:
            parameter.grad = ranks.sum_tensor(parameter.grad)
