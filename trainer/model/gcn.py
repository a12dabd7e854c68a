"""RecommenderGCN: three GCNConv layers with ReLU between, for ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainer.embedding.embeddings import Embeddings
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model.product import product

if TYPE_CHECKING:
    from torch_geometric.nn import GCNConv


class RecommenderGCN(nn.Module):
    """Learnable node features, GCNConv layers with ReLU between; an edge is predicted by its ends.

    GCNConv's message passing is done by the graph's sparse products, its parameters are its own.

    prediction = mean + bias_u + bias_i + <h_u, h_i>; nodes are the users, then the items.
    """

    def __init__(self, n_users: int, n_items: int, dim: int, layers: int, mean: float) -> None:
        from torch_geometric.nn import GCNConv  # 4 s of CPU that no other model needs

        super().__init__()
        self.n_users = n_users
        self.mean = mean
        self.features = nn.Parameter(torch.empty(n_users + n_items, dim))
        nn.init.normal_(self.features, std=0.03)
        self.convs = nn.ModuleList(GCNConv(dim, dim) for _ in range(layers))
        self.bias = nn.Parameter(torch.zeros(n_users + n_items))

    def forward(self, graph: Adjacency) -> tuple[Tensor, Tensor]:
        """User [users, dim] and item [items, dim] embeddings."""
        nodes = self._states(graph)[-1]
        return nodes[: self.n_users], nodes[self.n_users :]

    def predict(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Interaction float [edges] of edges int64 `user`, `item`, from forward's embeddings."""
        bias = self.mean + self.bias[user] + self.bias[item + self.n_users]
        return bias + (users[user] * items[item]).sum(1)

    @torch.no_grad()
    def embeddings(self, graph: InteractionGraph, cosine: bool) -> Embeddings:
        """What scores and folds in over `graph`: each layer's item messages, weights and bias."""
        n = self.n_users
        where = self.features.device
        states = self._states(Adjacency.of(graph, where))
        roots = torch.from_numpy(graph.item_degrees).to(where).float().add(1).sqrt()[:, None]
        tensors = {
            "base": self.features[:n].detach(),
            "outgoing": _outgoing(states[-1][n:], self.bias[n:], cosine),
            "user_bias": (self.mean + self.bias[:n]).detach(),
            "unknown_bias": torch.tensor([self.mean], device=self.bias.device),
        }
        for number, conv in enumerate(self.convs):
            weight = cast("GCNConv", conv).lin.weight.T
            name = "incoming" if number == len(self.convs) - 1 else f"incoming.{number}"
            tensors[name] = states[number][n:] @ weight / roots
            tensors[f"weight.{number}"] = weight.detach()
            tensors[f"bias.{number}"] = cast(Tensor, conv.bias).detach()
        return Embeddings("gcn", len(self.convs), cosine, tensors)

    def _states(self, graph: Adjacency) -> list[Tensor]:
        """Input of each layer, then the output of the last; each [users + items, dim]."""
        roots = [degrees.rsqrt()[:, None] for degrees in graph.degrees_with_loops()]
        (by_user, by_item), n = graph.unweighted, self.n_users
        states: list[Tensor] = [self.features]
        for number, conv in enumerate(self.convs):
            users, items = states[-1][:n] * roots[0], states[-1][n:] * roots[1]
            gathered = torch.cat(
                [
                    (product(by_user, by_item, items) + users) * roots[0],
                    (product(by_item, by_user, users) + items) * roots[1],
                ]
            )
            out = cast("GCNConv", conv).lin(gathered) + cast("GCNConv", conv).bias
            states.append(out.relu() if number < len(self.convs) - 1 else out)
        return states


def _outgoing(items: Tensor, bias: Tensor, cosine: bool) -> Tensor:
    """Item rows [items, dim + 2] for user rows [vector, 1, user bias]; a cosine has no bias."""
    if cosine:
        items, bias = normalize(items, dim=1), torch.zeros_like(bias)
    return torch.cat([items, bias[:, None], torch.ones_like(bias)[:, None]], 1)
