"""RecommenderGCN: three GCNConv layers with ReLU between, for ratings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from process.errors import StreamGCNError
from trainer.embedding.gcn import GcnEmbeddings
from trainer.embedding.predictions import predictions, rmse
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency
from trainer.model.adam import Adam
from trainer.model.biases import user_item_biases
from trainer.model.gradient_training import EarlyStopping, begin, train
from trainer.model.network import SOFTMAX, Network, NetworkSettings
from trainer.model.part import Fitted, Part, State
from trainer.model.product import product
from trainer.model.progress import Progress, quiet

EPOCHS, RATE = 200, 0.01
BIAS_RATE, DECAY, DROP = 0.001, 1e-4, 0.3  # the last is the edge_drop if none is set

if TYPE_CHECKING:
    from torch_geometric.nn import GCNConv


class OneProcess(StreamGCNError):
    """The gcn cannot be trained in several processes."""


class RecommenderGCN(Network):
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
    def embeddings(self, graph: InteractionGraph, cosine: bool) -> GcnEmbeddings:
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
        return GcnEmbeddings("gcn", len(self.convs), cosine, tensors)

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


@dataclass
class FittedGcn(Fitted[NetworkSettings]):
    """The trained network."""

    network: RecommenderGCN
    epochs: int | None = None

    def serves(self, settings: NetworkSettings) -> bool:  # noqa: ARG002
        """Nothing of the gcn is chosen."""
        return True

    def embeddings(self, graph: InteractionGraph, settings: NetworkSettings) -> GcnEmbeddings:
        """What scores and folds in over a graph."""
        return self.network.embeddings(graph, (settings.loss or Gcn.loss) == "softmax").cpu()


class Gcn(Part[NetworkSettings]):
    """The gcn, a model by itself: nothing of it is chosen, and it is always trained anew."""

    name = "gcn"
    kind = NetworkSettings
    variables = ("loss", "epochs")
    loss = "mse"
    uses_weights = True
    goes_on = False
    stops_early = True

    @property
    def open(self) -> set[str]:
        """Nothing: what is not set has a usual value."""
        return set()

    def unread(self, settings: NetworkSettings) -> dict[str, str]:
        """Only the softmax knows strengths, and neither knows an order."""
        made = {"recency": "STREAMGCN_MODEL is gcn"}
        if (loss := settings.loss or self.loss) != "softmax":
            made |= dict.fromkeys((*SOFTMAX, "dampening"), f"the loss is {loss}")
        return made

    def fit(
        self,
        graph: InteractionGraph,
        settings: NetworkSettings,
        progress: Progress = quiet,
        state: State | None = None,  # noqa: ARG002
        share: int = 1,  # noqa: ARG002
        held_out: InteractionGraph | None = None,
    ) -> FittedGcn:
        """Train; with mse until the error on `held_out` was least.

        Raises:
            OneProcess: several processes train.
        """
        where = begin(settings)
        if graph.ranks.several:
            raise OneProcess("the gcn is trained in one process; start it without torchrun")
        loss = settings.loss or self.loss
        sizes = (graph.n_users, graph.n_items, settings.dim, settings.layers)
        network = RecommenderGCN(*sizes, float(graph.weights.mean()))
        stopping = None
        if loss == "mse":
            with torch.no_grad():  # the layers begin where the biases of users and items end
                biases = torch.from_numpy(np.concatenate(user_item_biases(graph)))
                network.bias.copy_(biases)
            if held_out is not None and len(held_out):
                stopping = EarlyStopping(_error(graph, held_out))
        network = network.to(where)
        drop = DROP if settings.edge_drop is None else settings.edge_drop
        epochs = settings.epochs or EPOCHS
        # The features decay, so that they add to the biases only what generalises.
        optimizers = [
            Adam([network.features], RATE, epochs, decay=DECAY),
            Adam(network.convs.parameters(), RATE, epochs),
            Adam([network.bias], BIAS_RATE, epochs),
        ]
        train(network, graph, settings, loss, optimizers, epochs, drop, progress, stopping)
        return FittedGcn(network, stopping.epoch if stopping else None)


def _error(kept: InteractionGraph, held_out: InteractionGraph) -> Callable[[Network], float]:
    """The RMSE of a network's predictions of the held-out edges."""

    def error(network: Network) -> float:
        embeddings = cast(RecommenderGCN, network).embeddings(kept, cosine=False).cpu()
        return rmse(predictions(embeddings, kept, held_out), held_out.weights)

    return error
