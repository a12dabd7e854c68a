"""Weighted sums of rows of a table, with a gradient in half the time of torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class _WeightedSums(torch.autograd.Function):
    """The gradient of a row is a weighted sum too, of the gradients of the sums it is in."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.n_rows = len(table)
        return embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = (saved.flatten() for saved in ctx.saved_tensors)
        used = weights.nonzero()[:, 0]
        by_row = used[rows[used].argsort(stable=True)]
        counts = rows[used].bincount(minlength=ctx.n_rows)
        sums, starts = by_row // ctx.saved_tensors[0].shape[1], counts.cumsum(0) - counts
        of_table = embedding_bag(
            sums, gradients[0], starts, per_sample_weights=weights[by_row], mode="sum"
        )
        return of_table, None, None


def weighted_sums(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sums of `table[rows]` by `weights`.

    Args:
        table: float [n, dim]; the gradient is made for this one alone.
        rows: int32 or int64 [sums, k].
        weights: float [sums, k]; a row with the weight 0 is left out.

    Returns:
        float [sums, dim].
    """
    sums: Tensor = _WeightedSums.apply(table, rows, weights)  # type: ignore[no-untyped-call]
    return sums
