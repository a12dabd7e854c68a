"""LightGCN: the learned part where the order of edges says nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import TINY
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import Adjacency, power
from trainer.model.adam import Adam
from trainer.model.gradient_training import begin, train
from trainer.model.learned_settings import LearnedSettings
from trainer.model.network import Network
from trainer.model.parallel import summed
from trainer.model.part import Fitted, State
from trainer.model.product import product
from trainer.model.progress import Progress

EPOCHS = 200  # fewer lose on Gowalla: benchmarks/LOG.md
RATE, WARM_RATE = 0.05, 0.02  # of Adam, at the first step


class LightGCN(Network):
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
                summed(product(graph.by_item, graph.by_user, users), graph.ranks),
            )
            user_sum = user_sum + users
            item_sum = item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def predict(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Interaction float [edges] of edges int64 `user`, `item`, from forward's embeddings."""
        return (users[user] * items[item]).sum(1)

    def shared(self) -> list[nn.Parameter]:
        """The table of items."""
        return [self.items]

    @torch.no_grad()
    def embeddings(self, graph: InteractionGraph, cosine: bool) -> BlendEmbeddings:
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
            gathered = graph.ranks.sum_tensor(adjacency.by_item @ users)
            users, items = adjacency.by_user @ items, gathered
            outgoing += items
        outgoing = normalize(outgoing, dim=1) if cosine else outgoing / (self.layers + 1)
        tensors = {
            "base": self.users.detach(),
            "incoming": incoming * degrees.clamp(min=TINY).rsqrt() * (degrees > 0),
            "outgoing": outgoing,
        }
        return BlendEmbeddings("lightgcn", self.layers, cosine, tensors)


@dataclass
class FittedLightGCN(Fitted[LearnedSettings]):
    """The trained network; what it leaves over a graph is kept, as a search asks for it often."""

    network: LightGCN
    settings: LearnedSettings
    _left: tuple[InteractionGraph, BlendEmbeddings] | None = field(default=None, repr=False)

    def serves(self, settings: LearnedSettings) -> bool:
        """Whether these settings need no other training."""
        names = ("dim", "layers", "epochs", "temperature", "negatives", "negative_power",
                 "edge_drop", "loss", "seed")  # fmt: skip
        return all(getattr(settings, name) == getattr(self.settings, name) for name in names)

    def embeddings(self, graph: InteractionGraph, settings: LearnedSettings) -> BlendEmbeddings:
        """The part on its own."""
        if self._left is None or self._left[0] is not graph:
            cosine = (settings.loss or "softmax") == "softmax"
            made = self.network.embeddings(graph, cosine)
            self._left = graph, made.cpu()
        made = self._left[1]
        rows = graph.ranks.own
        popular = power(graph.item_strengths[rows], settings.learned_power or 0.0)
        tensors = made.tensors | {
            "incoming": made.tensors["incoming"][rows],
            "outgoing": made.outgoing[rows] * torch.from_numpy(popular)[:, None],
        }
        recency, dampened = settings.recency or 0.0, bool(settings.dampening)
        return BlendEmbeddings(settings.model, made.layers, made.cosine, tensors, recency, dampened)

    def state(self, settings: LearnedSettings) -> State:  # noqa: ARG002
        """The tables of users and items."""
        return self.network.tables()


def fit(
    graph: InteractionGraph,
    settings: LearnedSettings,
    progress: Progress,
    state: State | None = None,
    share: int = 1,
) -> FittedLightGCN:
    """Train, or train on from a state's tables of users and items; arguments as `Part.fit`."""
    where = begin(settings, graph.ranks.rank)
    network = LightGCN(graph.n_users, graph.n_items, settings.dim, settings.layers).to(where)
    network.items.data = graph.ranks.firsts(network.items.data)
    tables = {name: of for name, of in (state or {}).items() if name in ("users", "items")}
    epochs, rate = settings.epochs or EPOCHS, RATE
    if tables:
        network.load_state_dict(tables)
        epochs, rate = max(1, epochs // share), WARM_RATE
    optimizer = Adam(network.parameters(), rate, epochs)
    loss, drop = settings.loss or "softmax", settings.edge_drop or 0.0
    train(network, graph, settings, loss, [optimizer], epochs, drop, progress)
    return FittedLightGCN(network, settings)
