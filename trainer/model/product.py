"""The product of a sparse and a dense matrix, differentiable in the dense one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Product(torch.autograd.Function):
    """Sparse times dense with the transpose at hand, so that the backward is a product as well."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
        ctx.transpose = transpose
        result: Tensor = torch.sparse.mm(matrix, dense)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, torch.sparse.mm(ctx.transpose, gradients[0].contiguous())


def product(matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
    """matrix [n, m] @ dense [m, dim], differentiable in `dense`; `transpose` is the matrix's."""
    result: Tensor = _Product.apply(matrix, transpose, dense)  # type: ignore[no-untyped-call]
    return result
