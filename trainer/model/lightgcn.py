"""LightGCN: the learned part of the blend."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainer.embedding.edges import TINY
from trainer.embedding.embeddings import Embeddings
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model.parallel import summed
from trainer.model.product import product


class LightGCN(nn.Module):
    """LightGCN (He et al., SIGIR 2020): the mean over layers of neighbourhood averages."""

    def __init__(self, n_users: int, n_items: int, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.users = nn.Parameter(torch.empty(n_users, dim))
        self.items = nn.Parameter(torch.empty(n_items, dim))
        nn.init.normal_(self.users, std=0.1)
        nn.init.normal_(self.items, std=0.1)

    def forward(self, graph: Adjacency) -> tuple[Tensor, Tensor]:
        """User [users, dim] and item [items, dim] embeddings."""
        users: Tensor = self.users
        items: Tensor = self.items
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = (
                product(graph.by_user, graph.by_item, items),
                summed(product(graph.by_item, graph.by_user, users)),
            )
            user_sum = user_sum + users
            item_sum = item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def predict(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Interaction float [edges] of edges int64 `user`, `item`, from forward's embeddings."""
        return (users[user] * items[item]).sum(1)

    @torch.no_grad()
    def embeddings(self, graph: InteractionGraph, cosine: bool) -> Embeddings:
        """What scores and folds in over `graph`.

        z_i = sum over layers 0..L-1 of the item's layer vector / sqrt(d_i) is what an edge brings:
        user = (e_u0 + sum over own items of r_ui z_i / sqrt(d_u)) / (L + 1), which is forward's.
        """
        where = self.items.device
        adjacency = Adjacency.of(graph, where)
        degrees = torch.from_numpy(graph.item_strengths).to(where)[:, None]
        users: Tensor = self.users
        items: Tensor = self.items
        incoming = torch.zeros_like(items)
        outgoing = self.items.clone()
        for _ in range(self.layers):
            incoming += items
            users, items = adjacency.by_user @ items, adjacency.by_item @ users
            outgoing += items
        outgoing = normalize(outgoing, dim=1) if cosine else outgoing / (self.layers + 1)
        tensors = {
            "base": self.users.detach(),
            "incoming": incoming * degrees.clamp(min=TINY).rsqrt() * (degrees > 0),
            "outgoing": outgoing,
        }
        return Embeddings("lightgcn", self.layers, cosine, tensors)
