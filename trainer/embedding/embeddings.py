"""What a trained model leaves: tables from which any user, known or new, is scored by its edges."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.edges import TINY, Own


@dataclass(frozen=True)
class Embeddings:
    """The tensors of one trained model; float32, the item numbers of `neighbors` int32.

    blend, lightgcn: with R_ui the strengths of the user's edges and D_u their sum,

        score(u, j) = sum_i R'_ui / D_u (near_ij + <low_i, low'_j>) + <unit(learned_u), learned'_j>
        learned_u   = base_u + sum_i R'_ui / sqrt(D_u) learned_i
        R'_ui       = R_ui (1 + age_ui)^-recency, scaled so that its sum over i is D_u

    so that all of a score but base_u's part is a sum over the user's own edges. Without `cosine`
    learned_u is divided by layers + 1 instead of by its length.

    incoming [items, vectors + dim]  low_i, learned_i: what an edge to the item brings
    outgoing [items, vectors + dim]  low'_j, learned'_j: what the item is scored by
    neighbors, similarities [items, kept]  near_ij: the largest entries of the item's neighbours
        and transitions together, zero-padded
    base [users, dim]  the user's own part; zero for a user that the model has not seen
    strengths [items], squares [vectors], scales [4]  the items' sums of strengths, the low pass's
        squared singular values and the parts' factors, of which new_items.py makes further items

    gcn: `incoming` of the last layer, `incoming.N` and weights and biases of each layer; `outgoing`
    has two columns more, the item's bias and 1, for user vectors that end in 1 and the user's bias.
    """

    model: str
    layers: int
    cosine: bool
    tensors: dict[str, Tensor]
    recency: float = 0.0
    dampened: bool = False  # whether R_ui are logarithms of 1 + the edges' weights

    @property
    def outgoing(self) -> Tensor:
        """float [items, width]."""
        return self.tensors["outgoing"]

    @property
    def n_users(self) -> int:
        """Users that the model has seen."""
        return len(self.tensors["base"])

    @property
    def n_items(self) -> int:
        """Items that can be scored."""
        return len(self.outgoing)

    @property
    def dim(self) -> int:
        """Columns of the learned part."""
        return self.tensors["base"].shape[1]

    @property
    def vectors(self) -> int:
        """Columns of the low pass, which come before the learned part's; the leading ones first."""
        return 0 if self.model == "gcn" else self.outgoing.shape[1] - self.dim

    def to(self, device: torch.device) -> Embeddings:
        """The same on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)

    def cpu(self) -> Embeddings:
        """The same on the CPU."""
        return self.to(torch.device("cpu"))

    @torch.no_grad()
    def score(self, users: Tensor, own: Own) -> Tensor:
        """Scores of all items, float [block, items]: the one way by which anything is ranked.

        Exact given frozen items (fold-in), whether or not the model has seen the users.

        Args:
            users: int64 [block], the model's user numbers, -1 for users it has not seen.
            own: their edges.
        """
        return self.add_near(self.user_vectors(users, own) @ self.outgoing.T, own)

    @torch.no_grad()
    def add_near(self, scores: Tensor, own: Own) -> Tensor:
        """Add the neighbours' part to scores float [block, items], in place; returns them."""
        if "neighbors" in self.tensors:
            places = self._near_places(own)
            shares = own.recent(self.recency).shares()[:, None]
            near = self.tensors["similarities"].index_select(0, own.items) * shares
            scores.view(-1).scatter_add_(0, places.view(-1), near.view(-1))
        return scores

    @torch.no_grad()
    def user_vectors(self, users: Tensor, own: Own) -> Tensor:
        """Vectors [block, width] whose products with `outgoing` are the scores but `near`."""
        if self.model == "gcn":
            known = (users >= 0)[:, None]
            base = self.tensors["base"][users.clamp(min=0)] * known
            bias = self.tensors["user_bias"][users.clamp(min=0), None]
            bias = torch.where(known, bias, self.tensors["unknown_bias"])
            return torch.cat([self._gcn(base, own), torch.ones_like(bias), bias], 1)
        own = own.recent(self.recency)
        gathered = self._gather("incoming", own)
        sums = own.sums().clamp(min=TINY)[:, None]
        learned = self.learned(users, own, gathered[:, self.vectors :])
        scaled = functional.normalize(learned, dim=1) if self.cosine else learned / self.terms
        return torch.cat([gathered[:, : self.vectors] / sums, scaled], 1)

    def learned(self, users: Tensor, own: Own, gathered: Tensor | None = None) -> Tensor:
        """learned_u of the class's formula, before its length is taken out; [block, dim].

        Args:
            gathered: sums of the rows of `incoming` in the learned part's columns, where they are
                at hand.
        """
        base = self.tensors["base"][users.clamp(min=0)] * (users >= 0)[:, None]
        gathered = self._gather("incoming", own, self.vectors) if gathered is None else gathered
        return base + gathered / own.sums().clamp(min=TINY)[:, None].sqrt()

    @property
    def terms(self) -> int:
        """Layer vectors that LightGCN takes the mean of."""
        return self.layers + 1

    @torch.no_grad()
    def contributions(self, users: Tensor, own: Own, recommended: Tensor) -> Tensor:
        """What each own item adds to its user's recommended items' scores, float [edges, k].

        A user's column sums are the scores, less the part of `base` where the model has seen the
        user. For gcn they are the last layer's part, the only one that is linear in the edges.

        Args:
            users: int64 [block], the model's user numbers, -1 for users it has not seen.
            own: their edges.
            recommended: int64 [block, k].
        """
        own = own.recent(self.recency)
        incoming, outgoing = self.tensors["incoming"], self.outgoing
        width, vectors = incoming.shape[1], self.vectors
        factors = torch.ones(len(users), device=users.device)  # of the learned part
        if self.model != "gcn":
            learned = self.learned(users, own)
            length = learned.norm(dim=1).clamp(min=TINY) if self.cosine else self.terms
            factors = own.sums().sqrt() / length
        made = torch.empty(len(own.items), recommended.shape[1], device=users.device)
        to = outgoing.new_empty(recommended.shape[1], outgoing.shape[1])
        to_them, lengths = to[:, :width].T, own.starts.diff().tolist()
        users_own = zip(torch.split(own.items, lengths), torch.split(made, lengths), strict=True)
        each = zip(users_own, recommended.unbind(), factors.tolist(), strict=True)
        for (items, shares), best, factor in each:  # a user's rows stay in the cache
            brought = incoming.index_select(0, items)
            brought[:, vectors:].mul_(factor)
            torch.index_select(outgoing, 0, best, out=to)
            torch.mm(brought, to_them, out=shares)
        if self.model == "gcn":
            return made
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

    def _near_places(self, own: Own) -> Tensor:
        """Where in a flat [block, items] the neighbours of each edge's item are, [edges, kept]."""
        neighbors = self.tensors["neighbors"].index_select(0, own.items)
        return (own.rows() * self.n_items)[:, None] + neighbors

    def _gcn(self, state: Tensor, own: Own) -> Tensor:
        """GCNConv's layers on each user's own neighbourhood; the degree counts the self-loop."""
        degrees = own.starts.diff()[:, None] + 1
        own = own._replace(strengths=torch.ones_like(own.strengths))
        for number in range(self.layers):
            last = number == self.layers - 1
            gathered = self._gather("incoming" if last else f"incoming.{number}", own)
            kept = state @ self.tensors[f"weight.{number}"] / degrees
            state = gathered / degrees.sqrt() + kept + self.tensors[f"bias.{number}"]
            state = state if last else state.relu()
        return state

    def _gather(self, name: str, own: Own, first: int = 0) -> Tensor:
        """Sum of the rows of the users' items by strength, from column `first` on; [block, any]."""
        table, starts = self.tensors[name][:, first:], own.starts[:-1]
        if not table.shape[1]:  # embedding_bag refuses it
            return table.new_zeros(len(starts), 0)
        return functional.embedding_bag(
            own.items, table, starts, mode="sum", per_sample_weights=own.strengths
        )
