"""Item-side fold-in: tables of items that the model has not seen, from the edges of their users.

With d_j the sum of a new item's strengths R_vj, D_v of its user's, and everything else frozen:

- neighbours, exactly as a retrain would: t_j = sum_v R_vj D_v^-a R_v gives row and column, each
  entry to the power of e;
- transitions, exactly as well: the distance of two edges of a user is the difference of their ages;
- low pass: the singular vectors' row from V = A^T A V / s^2, A = D_u^-c R D_i^-c, whose part of
  the item itself is taken to the left side: V_j = d_j^-c sum_v R_vj D_v^-2c sum_i R_vi d_i^-c V_i
  / (s^2 - a_j), a_j = sum_v A_vj^2; exact where s^2 > 2 a_j, damped in the weaker directions;
- learned: LightGCN's layers from 1 up, the users' mean layer in the place of each layer; next items
  as next_item_fold_in.py says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import TINY, Own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.next_item_fold_in import Pairs, rows_of_new_items

WEAKEST = 0.01  # of the largest s^2: a direction below tells nothing of a new item


class Folded(NamedTuple):
    """Rows for `Embeddings.tensors` of new items, and what they bring to the rows of the others.

    incoming, outgoing: float32 [new, width]; neighbors int32, similarities float32 [new, kept];
    near: float32 [new, items], near_ij of each old item i and the new item j; zero for most.
    The last three are None in a model without neighbours.
    """

    incoming: Tensor
    outgoing: Tensor
    neighbors: Tensor | None = None
    similarities: Tensor | None = None
    near: Tensor | None = None


def can_fold(embeddings: Embeddings) -> bool:
    """Whether the model tells of itself what is needed; the gcn does not."""
    return isinstance(embeddings, BlendEmbeddings) and "strengths" in embeddings.tensors


@torch.no_grad()
def fold_in(
    embeddings: Embeddings,
    settings: Mapping[str, float],
    users: Tensor,
    own: Own,
    totals: Tensor,
    touched: Own,
) -> Folded:
    """Tables of new items, for embeddings that `can_fold`.

    Args:
        settings: with the model's exponents, decay and damping.
        users: int64 [users], the model's user numbers, -1 for users it has not seen.
        own: their edges to items that the model was trained with.
        totals: float [users], the sums of all their strengths, those of new items included.
        touched: the edges of the new items: `items` are places in `users`.

    Raises:
        TypeError: the embeddings cannot fold.
    """
    if not isinstance(embeddings, BlendEmbeddings):
        raise TypeError(f"new items cannot be folded into a {embeddings.model}")
    tensors, new = embeddings.tensors, len(touched.starts) - 1
    degrees = touched.sums().clamp(min=TINY)[:, None]  # d_j
    totals = totals.clamp(min=TINY)
    rows, places, strengths = touched.rows(), touched.items, touched.strengths

    def gathered(of_users: Tensor, weights: Tensor) -> Tensor:
        """Sum of the users' rows by weight [edges], [new, width]."""
        made = of_users.new_zeros(new, of_users.shape[1])
        return made.index_add_(0, rows, of_users[places] * weights[:, None])

    scales, old = tensors["scales"], tensors["strengths"]  # d_i
    nothing = embeddings.outgoing.new_zeros(new, 0)
    incoming, outgoing = [nothing], [nothing]
    if embeddings.vectors:
        b, c = settings["low_pass_power"], settings["low_pass_normalization"]
        squares, damping = tensors["squares"], settings["low_pass_damping"]
        weights = own.strengths * _power(old, -b - c)[own.items] / scales[1]
        of_users = functional.embedding_bag(
            own.items, embeddings.outgoing, own.starts[:-1], mode="sum", per_sample_weights=weights
        )[:, : embeddings.vectors]
        itself = gathered(totals[:, None] ** (-2 * c), strengths**2) / degrees ** (2 * c)  # a_j
        weakest = torch.maximum(squares / 2, WEAKEST * squares[:1])
        row = gathered(of_users, strengths * totals[places] ** (-2 * c)) / degrees**c
        row /= torch.maximum(squares - itself, weakest)  # V_j
        gain = squares / (squares + damping * squares[:1])
        incoming.append(gain * degrees**-b * row)
        outgoing.append(scales[1] * degrees**b * row)
    pairs = Pairs.of(own, touched)
    if embeddings.predicts_next:
        brings, unit = rows_of_new_items(embeddings, own, touched, pairs)
        incoming.append(brings)
        outgoing.append(scales[2] * degrees ** settings["learned_power"] * unit)
    elif embeddings.dim:
        learned = embeddings.learned(users, own)
        layers = gathered(learned, strengths / totals[places].sqrt()) / degrees.sqrt()
        incoming.append((embeddings.layers - 1) / embeddings.terms * layers / degrees.sqrt())
        mean = embeddings.layers / embeddings.terms**2 * layers
        unit = functional.normalize(layers, dim=1) if embeddings.cosine else mean
        outgoing.append(scales[2] * degrees ** settings["learned_power"] * unit)
    made = Folded(torch.cat(incoming, 1), torch.cat(outgoing, 1))
    if "neighbors" not in tensors:
        return made
    edges, lengths, later = pairs
    at = rows.repeat_interleave(lengths) * embeddings.n_items + own.items[edges]

    def summed(brought: Tensor) -> Tensor:
        """Sum of what each pair of a new item's edge and an own edge brings, [new, items]."""
        together = torch.zeros(new, embeddings.n_items, device=rows.device)
        together.view(-1).index_add_(0, at, brought)
        return together

    outward, inward = torch.zeros(2, new, embeddings.n_items, device=rows.device)
    if scales[0]:
        a, p, q = (settings[f"neighbors_{kind}_power"] for kind in ("user", "own", "item"))
        brought = (strengths * totals[places] ** -a).repeat_interleave(lengths)
        e = settings.get("neighbors_pair_power", 1.0)  # older models have none
        together = summed(brought * own.strengths[edges])  # t_j
        outward += scales[0] * _power(together * _power(old, -q), e) * degrees**-p
        inward += scales[0] * _power(together * degrees**-q, e) * _power(old, -p)
    if len(scales) > 3 and scales[3] and own.ages is not None and touched.ages is not None:
        names = ("decay", "backward", "own_power", "item_power")
        t, b, p, q = (settings[f"transitions_{name}"] for name in names)
        liked = (strengths > 0).repeat_interleave(lengths) & (own.strengths[edges] > 0)
        near = (later != 0) & (later.abs() <= settings["transitions_reach"]) & liked
        k = scales[3] * near * later.abs().clamp(min=1) ** -t
        outward += summed(k * torch.where(later < 0, 1.0, b)) * degrees**-p * _power(old, -q)
        inward += summed(k * torch.where(later > 0, 1.0, b)) * _power(old, -p) * degrees**-q
    kept = min(tensors["neighbors"].shape[1], embeddings.n_items)
    best = outward.topk(kept, dim=1)
    return made._replace(neighbors=best.indices.int(), similarities=best.values, near=inward)


def _power(strengths: Tensor, exponent: float) -> Tensor:
    """strengths ** exponent, but 0 where the strength is 0, as in the filters."""
    return torch.where(strengths > 0, strengths.clamp(min=TINY) ** exponent, 0.0)
