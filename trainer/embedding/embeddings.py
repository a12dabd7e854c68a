"""What a trained model leaves: tables from which any user, known or new, is scored by its edges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from trainer.embedding.edges import Own

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Embeddings(ABC):
    """The tensors of one trained model; float32, item numbers int32. A class for each formula.

    layers: graph convolutions. cosine: whether vectors of users and items have length 1 before they
    are multiplied. recency: how quickly an own edge fades with its age. dampened: whether strengths
    are logarithms of 1 + the edges' weights.
    """

    model: str
    layers: int
    cosine: bool
    tensors: dict[str, Tensor]
    recency: float = 0.0
    dampened: bool = False
    fewest_layers: ClassVar[int] = 0

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
    def predicts(self) -> bool:
        """Whether scores are predicted interactions, and not only an order of the items."""
        return False

    @property
    def dim(self) -> int:
        """Columns of the learned part."""
        return self.tensors["base"].shape[1]

    @property
    def vectors(self) -> int:
        """Columns of the low pass, which come before those of the learned part."""
        return 0

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)

    def cpu(self) -> Self:
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

    def add_near(self, scores: Tensor, own: Own) -> Tensor:  # noqa: ARG002
        """Add what rows of item pairs give to scores float [block, items], in place."""
        return scores

    @abstractmethod
    def user_vectors(self, users: Tensor, own: Own) -> Tensor:
        """Vectors [block, width] whose products with `outgoing` are the scores without the rows of
        item pairs."""

    @abstractmethod
    def contributions(self, users: Tensor, own: Own, recommended: Tensor) -> Tensor:
        """What each own item adds to its user's recommended items' scores, float [edges, k].

        Args:
            users: int64 [block], the model's user numbers, -1 for users it has not seen.
            own: their edges.
            recommended: int64 [block, k].
        """

    @staticmethod
    @abstractmethod
    def shapes(
        found: Mapping[str, Tensor], users: int, items: int, layers: int
    ) -> dict[str, Shape]:
        """Names and shapes that tensors of a model of this class have.

        Args:
            found: tensors of a file, which tell of what only a file can tell, such as a width.
        """

    def gathered(self, name: str, own: Own) -> Tensor:
        """Sum of the rows of the users' items by strength, [block, width].

        Of whole rows: of some of a table's columns torch would first make a copy.
        """
        table, starts = self.tensors[name], own.starts[:-1]
        if not table.shape[1]:  # embedding_bag refuses it
            return table.new_zeros(len(starts), 0)
        return functional.embedding_bag(
            own.items, table, starts, mode="sum", per_sample_weights=own.strengths
        )
