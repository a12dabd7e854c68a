"""What networks that are trained by gradients share: the contract, and the settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from trainer.graph.sparse import Adjacency
from trainer.model.part import CommonSettings
from trainer.model.setting import setting

TEMPERATURE, NEXT_TEMPERATURE = 0.1, 0.15  # of LightGCN, of next items
SOFTMAX = ("temperature", "negatives", "negative_power")  # settings that no other loss reads
Tables = dict[str, Tensor]  # of a network's parameters, by name


@dataclass(frozen=True)
class NetworkSettings(CommonSettings):
    """What the learned part and the gcn share."""

    dim: int = setting(
        "Dimensions of the embeddings of the learned part and the gcn.", 128, least=1, most=4_096
    )
    layers: int = setting(
        "Graph convolutions of LightGCN and the gcn.", 3, least=1, most=8, lightgcn=True
    )
    epochs: int | None = None  # passes over the edges; None: the network's own number
    temperature: float | None = setting(
        "Learned part: temperature of the softmax.",
        usual=TEMPERATURE,
        usual_next=NEXT_TEMPERATURE,
        above=0,
    )
    negatives: int = setting(
        "Learned part: items sampled in each step, the same for all users.", 1_024, least=1
    )
    negative_power: float | None = setting(
        "LightGCN: items are sampled by their degree to this power.",
        usual=0.5, least=0, most=2, lightgcn=True,
    )  # fmt: skip
    edge_drop: float | None = setting(
        "LightGCN and the gcn: share of the edges left out of the graph in each step.",
        usual=0.0, least=0, below=1, lightgcn=True,
    )  # fmt: skip


class Network(nn.Module, ABC):
    """Embeddings of users and items from the graph, and what an edge is predicted to be."""

    @abstractmethod
    def forward(self, graph: Adjacency) -> tuple[Tensor, Tensor]:
        """User [users, dim] and item [items, dim] embeddings."""

    @abstractmethod
    def predict(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Interaction float [edges] of edges int64 `user`, `item`, from forward's embeddings."""

    def shared(self) -> list[nn.Parameter]:
        """The parameters that are the same on all ranks: those that are not of users."""
        return list(self.parameters())

    def tables(self) -> Tables:
        """The parameters, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters()}
