"""Parts that are rows of an item-item matrix, of which the largest entries are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.largest import largest
from trainer.graph.arrays import Float32s, Int64s
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.part import CommonSettings, Fitted
from trainer.model.rows_of_ranks import summed
from trainer.model.setting import setting
from trainer.ranks import ALONE, Ranks
from trainer.threads import on_threads

BLOCK = 2_500_000  # entries of the item-item matrix that a thread makes at a time


class Rows(NamedTuple):
    """The largest entries of the row of each item of this rank, padded with zeros to the same width
    on all ranks.

    columns: int32 [own items, width], numbers of items; values: float32 [own items, width].
    """

    columns: Tensor
    values: Tensor


@dataclass(frozen=True)
class RowSettings(CommonSettings):
    """What neighbours and transitions share."""

    neighbors_kept: int = setting(
        "Entries that are kept of each item's neighbours and transitions together.", 256, least=1
    )


R = TypeVar("R", bound=RowSettings, contravariant=True)


@dataclass(frozen=True)
class FittedRows(Fitted[R]):
    """Rows without the exponent of the user's own items, which scales a row as a whole.

    made_with: values of the settings that the rows depend on, by name. own_power: name of the
    setting of that exponent. pair_power: name of the setting of an exponent of the entries.
    """

    rows: Rows
    made_with: dict[str, object]
    own_power: str
    pair_power: str | None = None

    def serves(self, settings: R) -> bool:
        """Whether these settings need no other fit."""
        return all(getattr(settings, name) == was for name, was in self.made_with.items())

    def embeddings(self, graph: InteractionGraph, settings: R) -> BlendEmbeddings:
        """The part on its own: rows of neighbours, no vectors."""
        exponent = getattr(settings, self.own_power) or 0.0
        degrees = graph.item_strengths[graph.ranks.own]
        scale = torch.from_numpy(power(degrees, -exponent))[:, None]
        values = self.rows.values
        if self.pair_power:
            values = values ** (getattr(settings, self.pair_power) or 1.0)
        nothing = torch.zeros(len(degrees), 0)
        tensors = {
            "base": torch.zeros(graph.n_users, 0),
            "incoming": nothing,
            "outgoing": nothing,
            "neighbors": self.rows.columns,
            "similarities": values * scale,
        }
        recency, dampened = settings.recency or 0.0, bool(settings.dampening)
        return BlendEmbeddings("blend", 0, True, tensors, recency, dampened)


def largest_rows(
    lengths: Int64s,
    made: Callable[[Int64s], sp.csr_array],
    kept: int,
    scale: Float32s,
    ranks: Ranks = ALONE,
) -> Rows:
    """The `kept` largest entries of the row of each item of this rank, without the diagonal.

    Memory grows with what is kept, not with the full matrix.

    Args:
        lengths: int64 [items], how many entries a row has at most.
        made: int64 [block] item numbers -> sparse [block, items], the rows of these items; they are
            summed over the ranks.
        scale: float32 [items], by which each row is multiplied at the end.
    """
    n_items = len(lengths)
    width = max(1, min(kept, n_items - 1))
    blocks = [
        [rank + ranks.size * rows for rows in _blocks(lengths[rank :: ranks.size])]
        for rank in range(ranks.size)
    ]
    own = blocks[ranks.rank]
    if ranks.several:
        rows = summed(made, blocks, n_items, ranks)  # which the last strict zip runs to its end
        found = (_largest(of, items, width) for items, of in zip(own, rows, strict=True))
    else:
        found = on_threads(lambda items: _largest(made(items), items, width), own)
    return _filled(own, found, width, scale, ranks)


def together(parts: list[tuple[Rows, float]], n_items: int, kept: int, ranks: Ranks) -> Rows:
    """The `kept` largest entries of each row of a weighted sum of rows."""
    n, most = len(parts[0][0].columns), sum(rows.columns.shape[1] for rows, _ in parts)
    width = max(1, min(kept, n_items - 1))
    added = sp.csr_array((n, n_items), dtype=np.float32)
    for rows, weight in parts:
        columns, values = rows.columns.numpy(), rows.values.numpy()
        starts = np.arange(0, columns.size + 1, columns.shape[1])
        added = added + sp.csr_array(
            (values.ravel() * np.float32(weight), columns.ravel(), starts), (n, n_items)
        )
    blocks = [ranks.rank + ranks.size * rows for rows in _blocks(np.full(n, min(n_items, most)))]
    found = on_threads(
        lambda items: _largest(sp.csr_array(added[items // ranks.size]), items, width), blocks
    )
    return _filled(blocks, found, width, np.ones(n_items, np.float32), ranks)


def _blocks(lengths: Int64s) -> list[Int64s]:
    """Numbers of rows that are made at a time.

    Rows of like length are side by side, so that a block is padded to little more than it holds.
    """
    order = np.argsort(lengths, kind="stable")
    blocks, begin = [], 0
    while begin < len(order):
        next_ones = lengths[order[begin : begin + BLOCK // max(1, lengths[order[begin]])]]
        padded = next_ones * np.arange(1, len(next_ones) + 1)
        end = begin + max(1, int(np.searchsorted(padded, BLOCK, side="right")))
        blocks.append(order[begin:end])
        begin = end
    return blocks


def _filled(
    blocks: list[Int64s],
    found: Iterable[tuple[npt.NDArray[np.int32], Float32s]],
    width: int,
    scale: Float32s,
    ranks: Ranks,
) -> Rows:
    """The rows of this rank's items.

    Args:
        blocks, found: numbers of items, and columns and values of the largest entries of their
            rows.
        scale: float32 [items], by which each row is multiplied.
    """
    own = scale[ranks.own]
    columns = np.zeros((len(own), width), np.int32)
    values = np.zeros((len(own), width), np.float32)
    for items, (places, entries) in zip(blocks, found, strict=True):
        rows = items // ranks.size
        columns[rows, : places.shape[1]] = places
        values[rows, : places.shape[1]] = entries
    values *= own[:, None]
    used = max(1, ranks.most(int((values > 0).sum(1).max(initial=0))))
    return Rows(torch.from_numpy(columns[:, :used]), torch.from_numpy(values[:, :used]))


def _largest(
    block: sp.csr_array, items: Int64s, kept: int
) -> tuple[npt.NDArray[np.int32], Float32s]:
    """Columns and values of each row's largest entries, those of the rows' own `items` left out."""
    lengths = np.diff(block.indptr)
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
    columns = np.zeros(filled.shape, np.int32)
    values = np.zeros(filled.shape, np.float32)
    columns[filled], values[filled] = block.indices, block.data
    values[columns == items[:, None]] = 0
    top, places = largest(torch.from_numpy(values), min(kept, values.shape[1]))
    return np.take_along_axis(columns, places.numpy(), 1), top.numpy()
