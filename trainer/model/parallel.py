"""Data-parallel training over users by torch.distributed (torchrun); nothing to do in one process.

Each process holds all items and the edges of its own users. What items gather from users is summed
over the processes, forward and backward, and so are the gradients of the tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

from process.errors import StreamGCNError
from trainer.graph.interactions import InteractionGraph


class OneProcess(StreamGCNError):
    """What is asked for cannot be trained in several processes."""


def join(device: torch.device) -> None:
    """Join the processes that torchrun started, if it did."""
    if processes() > 1 and not distributed.is_initialized():
        cuda = device.type == "cuda"
        distributed.init_process_group(
            "nccl" if cuda else "gloo", device_id=device if cuda else None
        )


def processes() -> int:
    """How many processes torchrun says it has started, 1 if it did not start this one."""
    given = os.environ.get("WORLD_SIZE", "1").strip()
    return int(given) if given.isdecimal() else 1


def several() -> bool:
    """Whether other processes train with this one."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


def first() -> bool:
    """Whether this process is the one that reports."""
    if distributed.is_initialized():
        return distributed.get_rank() == 0
    return processes() == 1 or os.environ.get("RANK", "0").strip() == "0"


def own_edges(graph: InteractionGraph) -> npt.NDArray[np.bool_]:
    """Mask [edges] of the edges of this process's users."""
    if not distributed.is_initialized():
        return np.ones(len(graph), np.bool_)
    own: npt.NDArray[np.bool_] = (
        graph.users % distributed.get_world_size() == distributed.get_rank()
    )
    return own


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def summed(part: Tensor) -> Tensor:
    """The sum over all processes, differentiable: its gradient is the sum of theirs."""
    if not distributed.is_initialized():
        return part
    total: Tensor = _Summed.apply(part)  # type: ignore[no-untyped-call]
    return total


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place."""
    if distributed.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
