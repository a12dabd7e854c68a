"""What is trained and how; plain values, so that reading the settings loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Hyperparameters:
    """What is trained and how; None stands for the model's own default."""

    model: Literal["lightgcn", "gcn"] = "lightgcn"
    loss: Literal["softmax", "mse"] | None = None
    dim: int = 128
    layers: int = 3
    epochs: int | None = None
    device: str = "auto"
    temperature: float = 0.1
    negatives: int = 1_024  # items sampled in each step, shared by all users
    negative_power: float = 0.5  # sampled in proportion to degree ** this
    popularity: float | None = None  # of the items' bias; None: what the held-out slice says
    seed: int = 0
