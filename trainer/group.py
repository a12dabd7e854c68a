"""Several ranks by torch.distributed: NCCL between GPUs, gloo between processors.

Nothing is pickled: arrays and texts travel as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed

from process.errors import StreamGCNError, in_one_line
from trainer.ranks import ALONE, Array, Ranks, started

SUM, MAX = distributed.ReduceOp.SUM, distributed.ReduceOp.MAX
WAIT = timedelta(hours=2)  # for a rank that lives and says nothing: it may wait for a store


class RankLost(StreamGCNError):
    """Another rank has ended, or cannot be reached."""


class Group(Ranks):
    """All processes that torchrun started."""

    def __init__(self, where: torch.device) -> None:
        """Wait until all are there.

        Raises:
            RankLost: they do not find each other.
        """
        cuda = where.type == "cuda"
        try:
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                timeout=WAIT,
                device_id=where if cuda else None,
            )
        except (RuntimeError, ValueError) as error:
            raise RankLost(
                f"WORLD_SIZE={started()}, but the processes do not find each other "
                f"({in_one_line(error)}); start them with torchrun, or unset WORLD_SIZE"
            ) from error
        self.size, self.rank = distributed.get_world_size(), distributed.get_rank()

    def total(self, number: int) -> int:
        """By all_reduce."""
        return int(_reduced(torch.tensor([number])))

    def before(self, number: int) -> int:
        """By all_reduce of a number a rank."""
        return sum(self._sizes(number)[: self.rank])

    def most(self, number: int) -> int:
        """By all_reduce."""
        return int(_reduced(torch.tensor([number]), MAX))

    def largest(self, number: float) -> float:
        """By all_reduce."""
        return float(_reduced(torch.tensor([number], dtype=torch.float64), MAX))

    def any(self, yes: bool) -> bool:
        """By all_reduce."""
        return bool(self.most(int(yes)))

    def sum(self, values: Array) -> Array:
        """By all_reduce, of a copy."""
        made: Array = _reduced(torch.from_numpy(values.copy())).numpy()
        return made

    def sum_tensor(self, values: Tensor) -> Tensor:
        """By all_reduce."""
        return _reduced(values.contiguous())

    def sum_at(self, values: Tensor, rank: int) -> Tensor:
        """By reduce."""
        with _others():
            distributed.reduce(values, rank)
        return values

    def whole(self, rows: Tensor) -> Tensor:
        """By all_gather, padded to the same number of rows."""
        sizes = self._sizes(len(rows))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in sizes]
        with _others():
            distributed.all_gather(found, padded)
        made = rows.new_empty(sum(sizes), *rows.shape[1:])
        for rank, size in enumerate(sizes):
            made[rank :: self.size] = found[rank][:size]
        return made

    def whole_at_first(self, rows: Tensor) -> Tensor:
        """By send and recv, one rank after another."""
        sizes = self._sizes(len(rows))
        if not self.first:
            with _others():
                distributed.send(rows.contiguous(), 0)
            return rows
        made = rows.new_empty(sum(sizes), *rows.shape[1:])
        made[self.own] = rows
        for rank, size in enumerate(sizes[1:], 1):
            part = rows.new_empty(size, *rows.shape[1:])
            with _others():
                distributed.recv(part, rank)
            made[rank :: self.size] = part
        return made

    def spread(self, values: Tensor) -> float:
        """By sums in float64."""
        own = values.double()
        count, total = self.sum(np.array([own.numel(), float(own.sum())]))
        squares = self.sum(np.array([float((own - total / max(1.0, count)).square().sum())]))
        return math.sqrt(squares[0] / max(1.0, count))

    def joined(self, values: Array) -> Array:
        """By all_gather of bytes, padded to the same length."""
        own = _bytes(values)
        sizes = self._sizes(len(own))
        found = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        with _others():
            distributed.all_gather(found, padded)
        return _array([each[:size] for each, size in zip(found, sizes, strict=True)], values)

    def swapped(self, parts: Sequence[Array]) -> list[Array]:
        """By all_to_all of bytes."""
        given = [_bytes(part) for part in parts]
        leaving = torch.tensor([len(part) for part in given])
        coming = torch.empty_like(leaving)
        with _others():
            distributed.all_to_all_single(coming, leaving)
            sizes = coming.tolist()
            made = torch.empty(sum(sizes), dtype=torch.uint8)
            distributed.all_to_all_single(made, torch.cat(given), sizes, leaving.tolist())
        return [_array([part], parts[0]) for part in torch.split(made, sizes)]

    def firsts(self, values: Tensor) -> Tensor:
        """By broadcast."""
        made = values.contiguous()
        with _others():
            distributed.broadcast(made, 0)
        return made

    def said(self, words: bytes) -> bytes:
        """By broadcast of bytes."""
        size = self.most(len(words) if self.first else 0)
        made = torch.zeros(size, dtype=torch.uint8)
        if self.first:
            made[:] = torch.frombuffer(bytearray(words), dtype=torch.uint8) if words else 0
        with _others():
            distributed.broadcast(made, 0)
        return made.numpy().tobytes()

    def leave(self) -> None:
        """Whoever has ended already is not waited for."""
        with suppress(RuntimeError, ValueError):
            distributed.destroy_process_group()

    def _sizes(self, own: int) -> list[int]:
        """The number that each rank gives."""
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = own
        return _reduced(sizes).tolist()


def join(where: torch.device) -> Ranks:
    """All that torchrun started, once they have found each other; without torchrun this one alone.

    Args:
        where: the processor or GPU that this process trains on.

    Raises:
        RankLost: they do not find each other.
    """
    return ALONE if started() == 1 else Group(where)


def _reduced(tensor: Tensor, how: distributed.ReduceOp.RedOpType = SUM) -> Tensor:
    with _others():
        distributed.all_reduce(tensor, how)
    return tensor


def _bytes(values: Array) -> Tensor:
    """The bytes of an array, uint8 [bytes]."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return torch.from_numpy(flat.view(np.uint8).copy()) if len(flat) else torch.empty(0).byte()


def _array(parts: Sequence[Tensor], like: Array) -> Array:
    """The array whose rows, of the type and shape of those of `like`, have these bytes."""
    flat = torch.cat(list(parts)).numpy().view(like.dtype)
    return flat.reshape(-1, *like.shape[1:])


@contextmanager
def _others() -> Iterator[None]:
    """What torch raises inside, as it has many names for it, means that a rank is lost."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        why = in_one_line(error).split(". ")[0]
        raise RankLost(
            f"another process of this training has ended, or cannot be reached ({why}); the live "
            "model stays in use, start the trainer again"
        ) from error
