"""The embeddings of a blend: every part of the score is a sum over the user's own edges."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.edges import TINY, Own
from trainer.embedding.embeddings import Embeddings, Shape
from trainer.embedding.reasons import products

STRETCH = 262_144  # neighbours added at a time, so that they stay in the processor's cache
LARGEST_INT32 = 2**31 - 1


class BlendEmbeddings(Embeddings):
    """blend, lightgcn: with R_ui the strengths of the user's edges and D_u their sum,

        score(u, j) = sum_i R'_ui / D_u (near_ij + <low_i, low'_j>) + <unit(learned_u), learned'_j>
        learned_u   = base_u + sum_i R'_ui / sqrt(D_u) learned_i
        R'_ui       = R_ui (1 + age_ui)^-recency, scaled so that its sum over i is D_u

    so that all of a score but base_u's part is a sum over the user's own edges. Without `cosine`
    learned_u is divided by layers + 1 instead of by its length.

    incoming [items, vectors + dim]  low_i, learned_i: what an edge to the item brings
    outgoing [items, vectors + dim]  low'_j, learned'_j: what the item is scored by
    neighbors, similarities [items, kept]  near_ij: the largest entries of the item's neighbours
        and transitions together, zero-padded
    base [users, dim]  the user's own part; zero for a user that the model has not seen. [users, 0]
        where no user has one, as where the learned part predicts next items
    strengths [items], squares [vectors], scales [4]  the items' sums of strengths, the low pass's
        squared singular values and the parts' factors, of which item_fold_in.py makes further items
    """

    @property
    def vectors(self) -> int:
        """Columns of the low pass, which come before the learned part's; the leading ones first."""
        return self.outgoing.shape[1] - self.dim

    @property
    def dim(self) -> int:
        """Columns of the learned part."""
        # A model whose `base` has no columns always has `squares`.
        directions = len(self.tensors.get("squares", ()))
        return self.tensors["base"].shape[1] or self.outgoing.shape[1] - directions

    @property
    def predicts_next(self) -> bool:
        """Whether the learned part predicts next items: no user has a vector then."""
        return self.dim > 0 and not self.tensors["base"].shape[1]

    @property
    def terms(self) -> int:
        """Layer vectors that LightGCN takes the mean of."""
        return self.layers + 1

    @torch.no_grad()
    def add_near(self, scores: Tensor, own: Own) -> Tensor:
        """Add what neighbours and transitions give to scores float [block, items], in place."""
        shares = own.recent(self.recency).shares()
        return self.add_near_by(scores, own._replace(strengths=shares))

    def add_near_by(self, scores: Tensor, shares: Own) -> Tensor:
        """The same, by edges whose strengths are shares of their users' strengths."""
        if "neighbors" in self.tensors:
            neighbors, similarities = self.tensors["neighbors"], self.tensors["similarities"]
            begins = (shares.rows() * scores.shape[1])[:, None]
            if scores.numel() < LARGEST_INT32:  # int32 places take half the memory of int64 ones
                begins = begins.int()
            n = max(1, len(begins) if scores.is_cuda else STRETCH // neighbors.shape[1])
            edges = (shares.items, shares.strengths[:, None], begins)
            for items, parts, first in zip(*(torch.split(of, n) for of in edges), strict=True):
                places = neighbors.index_select(0, items).to(first.dtype).add_(first)
                near = similarities.index_select(0, items).mul_(parts)
                scores.view(-1).index_add_(0, places.view(-1), near.view(-1))
        return scores

    @torch.no_grad()
    def user_vectors(self, users: Tensor, own: Own) -> Tensor:
        """Vectors [block, width] whose products with `outgoing` are the scores but `near`."""
        own = own.recent(self.recency)
        return self.scaled(self.sums_of_items(own, own.sums()) + self.of_users(users))

    def sums_of_items(self, own: Own, sums: Tensor) -> Tensor:
        """What the edges bring to their users' vectors, before `scaled`; [block, width].

        Args:
            sums: float [block], of all strengths of the users, of which `own` may have some.
        """
        gathered, sums = self.gathered("incoming", own), sums.clamp(min=TINY)[:, None]
        parts = gathered[:, : self.vectors] / sums, gathered[:, self.vectors :] / sums.sqrt()
        return torch.cat(parts, 1)

    def of_users(self, users: Tensor) -> Tensor:
        """What users have by themselves, before `scaled`; [block, width], or a 0 where no user has
        anything."""
        base = self.tensors["base"]
        if not base.shape[1]:
            return base.new_zeros(())
        known = base[users.clamp(min=0)] * (users >= 0)[:, None]
        return functional.pad(known, (self.vectors, 0))

    def scaled(self, vectors: Tensor) -> Tensor:
        """Vectors [block, width] whose learned columns have the length that scores are made of."""
        low, learned = vectors[:, : self.vectors], vectors[:, self.vectors :]
        unit = functional.normalize(learned, dim=1) if self.cosine else learned / self.terms
        return torch.cat([low, unit], 1)

    def learned(self, users: Tensor, own: Own) -> Tensor:
        """learned_u of the class's formula, before its length is taken out; [block, dim]."""
        return (self.sums_of_items(own, own.sums()) + self.of_users(users))[:, self.vectors :]

    @torch.no_grad()
    def contributions(self, users: Tensor, own: Own, recommended: Tensor) -> Tensor:
        """What each own item adds to its user's recommended items' scores, float [edges, k].

        A user's column sums are the scores, less the part of `base` where the model has seen the
        user.
        """
        own = own.recent(self.recency)
        learned = self.learned(users, own)
        length = learned.norm(dim=1).clamp(min=TINY) if self.cosine else self.terms
        factors = own.sums().sqrt() / length
        made = products(
            self.tensors["incoming"], self.outgoing, own, recommended, self.vectors, factors
        )
        made *= own.shares()[:, None]
        if "neighbors" in self.tensors:
            place = torch.full(
                (len(users), self.n_items), -1, dtype=torch.int16, device=users.device
            )
            order = torch.arange(recommended.shape[1], dtype=torch.int16, device=users.device)
            place.scatter_(1, recommended, order.expand_as(recommended))
            entries = self._near_places(own)
            columns = place.view(-1).index_select(0, entries.view(-1)).view_as(entries)
            edges, kept = (columns >= 0).nonzero(as_tuple=True)
            near = self.tensors["similarities"][own.items[edges], kept] * own.shares()[edges]
            made.index_put_((edges, columns[edges, kept].long()), near, accumulate=True)
        return made

    @staticmethod
    def shapes(
        found: Mapping[str, Tensor],
        users: int,
        items: int,
        layers: int,  # noqa: ARG004
    ) -> dict[str, Shape]:
        """Names and shapes of the tensors, as `Embeddings.shapes`."""
        dim, width = _columns(found, "base"), _columns(found, "outgoing")
        directions = width - dim
        if not dim and "squares" in found and found["squares"].dim():
            directions = min(len(found["squares"]), width)
        n_scales = len(found["scales"]) if "scales" in found and found["scales"].dim() else 0
        made: dict[str, Shape] = {
            "base": (users, dim),
            "incoming": (items, max(dim, width)),
            "outgoing": (items, max(dim, width)),
            "strengths": (items,),
            "scales": (3,) if n_scales == 3 else (4,),  # the first version had no transitions
        }
        if width > dim or "squares" in found:
            made["squares"] = (directions,)
        if {"neighbors", "similarities"} & found.keys():
            kept = _columns(found, "neighbors")
            made |= {"neighbors": (items, kept), "similarities": (items, kept)}
        return made

    def _near_places(self, own: Own) -> Tensor:
        """Where in a flat [block, items] the neighbours of each edge's item are, [edges, kept]."""
        neighbors = self.tensors["neighbors"].index_select(0, own.items)
        return (own.rows() * self.n_items)[:, None] + neighbors


def _columns(found: Mapping[str, Tensor], name: str) -> int:
    """Columns of a matrix; 0 where there is none, which no shape of a snapshot has."""
    return found[name].shape[1] if name in found and found[name].dim() == 2 else 0
