"""What a trained model leaves: tables from which any user, known or new, is scored by its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Own(NamedTuple):
    """The edges of a block of users.

    starts: int64 [block + 1], where each user's begin; items: int64 [edges];
    strengths: float32 [edges].
    """

    starts: Tensor
    items: Tensor
    strengths: Tensor

    def to(self, device: torch.device) -> Own:
        """The same on another device."""
        return Own(*(column.to(device) for column in self))

    def sums(self) -> Tensor:
        """Sum of each user's strengths, [block]."""
        summed = functional.embedding_bag(
            torch.arange(len(self.items), device=self.items.device),
            self.strengths[:, None],
            self.starts[:-1],
            mode="sum",
        )
        return summed[:, 0]


@dataclass(frozen=True)
class Embeddings:
    """The tensors of one trained model; float32, the item numbers of `neighbors` int32.

    blend, lightgcn: with R_ui the strengths of the user's edges and D_u their sum,

        score(u, j) = sum_i R_ui / D_u (near_ij + <low_i, low'_j>) + <unit(learned_u), learned'_j>
        learned_u   = base_u + sum_i R_ui / sqrt(D_u) learned_i

    so that all of a score but base_u's part is a sum over the user's own edges. Without `cosine`
    learned_u is divided by layers + 1 instead of by its length.

    incoming [items, vectors + dim]  low_i, learned_i: what an edge to the item brings
    outgoing [items, vectors + dim]  low'_j, learned'_j: what the item is scored by
    neighbors, similarities [items, kept]  near_ij: the item's largest entries, zero-padded
    base [users, dim]  the user's own part; zero for a user that the model has not seen

    gcn: `incoming` of the last layer, `incoming.N` and weights and biases of each layer; `outgoing`
    has two columns more, the item's bias and 1, for user vectors that end in 1 and the user's bias.
    """

    model: str
    layers: int
    cosine: bool
    tensors: dict[str, Tensor]

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
    def _dim(self) -> int:
        return self.tensors["base"].shape[1]

    def to(self, device: torch.device) -> Embeddings:
        """The same on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Embeddings(self.model, self.layers, self.cosine, moved)

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
        scores = self.user_vectors(users, own) @ self.outgoing.T
        if "neighbors" in self.tensors:
            rows = torch.arange(len(users), device=users.device)
            rows = rows.repeat_interleave(own.starts.diff())
            shares = own.strengths / own.sums().clamp(min=TINY)[rows]
            places = rows[:, None] * self.n_items + self.tensors["neighbors"][own.items]
            near = self.tensors["similarities"][own.items] * shares[:, None]
            scores.view(-1).index_add_(0, places.view(-1), near.view(-1))
        return scores

    @torch.no_grad()
    def user_vectors(self, users: Tensor, own: Own) -> Tensor:
        """Vectors [block, width] whose products with `outgoing` are the scores but `near`."""
        known = (users >= 0)[:, None]
        base = self.tensors["base"][users.clamp(min=0)] * known
        if self.model == "gcn":
            bias = self.tensors["user_bias"][users.clamp(min=0), None]
            bias = torch.where(known, bias, self.tensors["unknown_bias"])
            return torch.cat([self._gcn(base, own), torch.ones_like(bias), bias], 1)
        sums = own.sums().clamp(min=TINY)[:, None]
        gathered = self._gather("incoming", own)
        vectors = gathered.shape[1] - self._dim
        learned = self._scaled(base + gathered[:, vectors:] / sums.sqrt())
        return torch.cat([gathered[:, :vectors] / sums, learned], 1)

    @torch.no_grad()
    def contributions(self, user: int, own: Own, recommended: Tensor) -> Tensor:
        """What each own item adds to each recommended item's score, float [edges, k].

        The column sums are the scores, less the part of `base` for a user that the model has seen.
        For gcn they are the last layer's part, the only one that is linear in the edges.

        Args:
            user: the model's user number, -1 for one it has not seen.
            own: the edges of this one user.
            recommended: int64 [k].
        """
        incoming = self.tensors["incoming"][own.items]
        outgoing = self.outgoing[recommended, : incoming.shape[1]]
        if self.model == "gcn":
            return incoming @ outgoing.T
        strengths = own.strengths[:, None]
        total = strengths.sum().clamp(min=TINY)
        vectors = incoming.shape[1] - self._dim
        scale = (strengths / total).expand(-1, vectors)
        if self._dim:
            learned = strengths / total.sqrt() * incoming[:, vectors:]
            summed = learned.sum(0, keepdim=True)
            if user >= 0:
                summed = summed + self.tensors["base"][user]
            ratio = self._scaled(summed).norm() / summed.norm().clamp(min=TINY)
            incoming = torch.cat([incoming[:, :vectors] * scale, learned * ratio], 1)
        else:
            incoming = incoming * scale
        made = incoming @ outgoing.T
        if "neighbors" in self.tensors:
            place = torch.full((self.n_items,), -1, device=recommended.device)
            place[recommended] = torch.arange(len(recommended), device=recommended.device)
            columns = place[self.tensors["neighbors"][own.items].long()]
            near = self.tensors["similarities"][own.items] * strengths / total
            made.scatter_add_(1, columns.clamp(min=0), near * (columns >= 0))
        return made

    def _scaled(self, learned: Tensor) -> Tensor:
        return functional.normalize(learned, dim=1) if self.cosine else learned / (self.layers + 1)

    def _gcn(self, state: Tensor, own: Own) -> Tensor:
        """GCNConv's layers on each user's own neighbourhood; the degree counts the self-loop."""
        degrees = own.starts.diff()[:, None] + 1
        own = Own(own.starts, own.items, torch.ones_like(own.strengths))
        for number in range(self.layers):
            last = number == self.layers - 1
            gathered = self._gather("incoming" if last else f"incoming.{number}", own)
            kept = state @ self.tensors[f"weight.{number}"] / degrees
            state = gathered / degrees.sqrt() + kept + self.tensors[f"bias.{number}"]
            state = state if last else state.relu()
        return state

    def _gather(self, name: str, own: Own) -> Tensor:
        """Sum of the rows of the users' items by strength, [block, width]."""
        table, starts = self.tensors[name], own.starts[:-1]
        if not table.shape[1]:  # embedding_bag refuses it
            return table.new_zeros(len(starts), 0)
        return functional.embedding_bag(
            own.items, table, starts, mode="sum", per_sample_weights=own.strengths
        )


TINY = 1e-12  # keeps a division by a sum that is zero finite
