"""The embeddings of the gcn: GCNConv layers on each user's own neighbourhood."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.embedding.edges import Own
from trainer.embedding.embeddings import Embeddings, Shape
from trainer.embedding.reasons import products


class GcnEmbeddings(Embeddings):
    """gcn: what each layer's item messages, weights and biases make of a user's edges.

    base [users, dim]  the user's features; zero for a user that the model has not seen
    incoming [items, dim]  what an edge to the item brings in the last layer
    incoming.N [items, dim]  the same in layer N
    weight.N [dim, dim], bias.N [dim]  of layer N
    user_bias [users], unknown_bias [1]  of users whom the model has seen, and of others
    outgoing [items, dim + 2]  the item's vector, bias and 1, for user vectors that end in 1 and the
        user's bias
    """

    fewest_layers = 1

    @property
    def predicts(self) -> bool:
        """Whether scores are predicted interactions; cosines are none."""
        return not self.cosine

    @torch.no_grad()
    def user_vectors(self, users: Tensor, own: Own) -> Tensor:
        """Vectors [block, width] whose products with `outgoing` are the scores."""
        known = (users >= 0)[:, None]
        base = self.tensors["base"][users.clamp(min=0)] * known
        bias = self.tensors["user_bias"][users.clamp(min=0), None]
        bias = torch.where(known, bias, self.tensors["unknown_bias"])
        return torch.cat([self._layers(base, own), torch.ones_like(bias), bias], 1)

    @torch.no_grad()
    def contributions(self, users: Tensor, own: Own, recommended: Tensor) -> Tensor:
        """What each own item adds to its user's recommended items' scores, float [edges, k].

        Of the last layer, the only one that is linear in the edges.
        """
        factors = torch.ones(len(users), device=users.device)
        return products(self.tensors["incoming"], self.outgoing, own, recommended, 0, factors)

    @staticmethod
    def shapes(
        found: Mapping[str, Tensor], users: int, items: int, layers: int
    ) -> dict[str, Shape]:
        """Names and shapes of the tensors, as `Embeddings.shapes`."""
        base = found.get("base")
        dim = base.shape[1] if base is not None and base.dim() == 2 else 0
        made: dict[str, Shape] = {
            "base": (users, dim),
            "outgoing": (items, dim + 2),
            "user_bias": (users,),
            "unknown_bias": (1,),
            "incoming": (items, dim),
        }
        for number in range(layers):
            made |= {f"weight.{number}": (dim, dim), f"bias.{number}": (dim,)}
            if number != layers - 1:
                made[f"incoming.{number}"] = (items, dim)
        return made

    def _layers(self, state: Tensor, own: Own) -> Tensor:
        """The last layer's output of each user [block, dim]; the degree counts the self-loop."""
        degrees = own.starts.diff()[:, None] + 1
        own = own._replace(strengths=torch.ones_like(own.strengths))
        for number in range(self.layers):
            last = number == self.layers - 1
            gathered = self.gathered("incoming" if last else f"incoming.{number}", own)
            kept = state @ self.tensors[f"weight.{number}"] / degrees
            state = gathered / degrees.sqrt() + kept + self.tensors[f"bias.{number}"]
            state = state if last else state.relu()
        return state
