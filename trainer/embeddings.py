"""What a trained model leaves: tables from which any user, known or new, is scored by its edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Embeddings:
    """The tensors of one trained model, float32.

    score(user, item) = <user vector, outgoing[item]>, the user vector made from the user's edges:
    base [users, dim]          the user's own part, zero for a user that the model has not seen
    incoming [items, dim]      what an edge to the item brings the user (in the last layer)
    outgoing [items, dim + 2]  what the item is scored by, then its bias, then 1
    user_bias [users], unknown_bias [1]: added to all scores of a user
    and, for `gcn`, weights, biases and messages of each layer.
    """

    model: str
    layers: int
    cosine: bool
    tensors: dict[str, Tensor]

    @property
    def outgoing(self) -> Tensor:
        """float [items, dim + 2]."""
        return self.tensors["outgoing"]

    @property
    def n_users(self) -> int:
        """Users that the model has seen."""
        return len(self.tensors["base"])

    @property
    def n_items(self) -> int:
        """Items that can be scored."""
        return len(self.outgoing)

    def to(self, device: torch.device) -> Embeddings:
        """The same on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Embeddings(self.model, self.layers, self.cosine, moved)

    def with_item_bias(self, bias: Tensor) -> Embeddings:
        """The same with float [items] as the items' bias."""
        outgoing = self.outgoing.clone()
        outgoing[:, -2] = bias
        return Embeddings(
            self.model, self.layers, self.cosine, self.tensors | {"outgoing": outgoing}
        )

    @torch.no_grad()
    def user_vectors(self, users: Tensor, starts: Tensor, items: Tensor) -> Tensor:
        """Vectors [block, dim + 2] of a block of users, exact given frozen items (fold-in).

        Args:
            users: int64 [block], the model's user numbers, -1 for users it has not seen.
            starts: int64 [block + 1], where each user's items begin.
            items: int64 [edges], the users' own items.
        """
        known = users >= 0
        base = self.tensors["base"][users.clamp(min=0)] * known[:, None]
        counts = starts.diff()[:, None]
        if self.model == "gcn":
            vectors = self._gcn(base, counts, starts, items)
        else:
            gathered = self._gather("incoming", starts, items) / counts.clamp(min=1).sqrt()
            vectors = (base + gathered) / (self.layers + 1)
        if self.cosine:
            vectors = functional.normalize(vectors, dim=1)
        bias = self.tensors["user_bias"][users.clamp(min=0)]
        bias = torch.where(known, bias, self.tensors["unknown_bias"])[:, None]
        return torch.cat([vectors, torch.ones_like(bias), bias], 1)

    @torch.no_grad()
    def because(self, own: Tensor, recommended: Tensor) -> Tensor:
        """For each recommended item the own item with the largest share of its score.

        Args:
            own: int64 [n], the user's items; recommended: int64 [k].

        Returns:
            int64 [k], positions in `own`.
        """
        incoming = self.tensors["incoming"][own]
        outgoing = self.outgoing[recommended, : incoming.shape[1]]
        return (incoming @ outgoing.T).argmax(0)

    def _gcn(self, state: Tensor, counts: Tensor, starts: Tensor, items: Tensor) -> Tensor:
        """GCNConv's layers on each user's own neighbourhood; the degree counts the self-loop."""
        degrees = counts + 1
        for number in range(self.layers):
            last = number == self.layers - 1
            gathered = self._gather("incoming" if last else f"incoming.{number}", starts, items)
            own = state @ self.tensors[f"weight.{number}"] / degrees
            state = gathered / degrees.sqrt() + own + self.tensors[f"bias.{number}"]
            state = state if last else state.relu()
        return state

    def _gather(self, name: str, starts: Tensor, items: Tensor) -> Tensor:
        """Sum of the rows of the users' items, [block, dim]."""
        return functional.embedding_bag(items, self.tensors[name], starts[:-1], mode="sum")
