"""Settings of the trainer, on top of the consumer's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from consumer.settings import ConsumerSettings
from trainer.hyperparameters import Hyperparameters


class TrainerSettings(ConsumerSettings):
    """When to train, what to train, where snapshots go."""

    model_store: str = Field("./data/models", min_length=1)
    min_edges: int = Field(1_000, ge=1, validation_alias="STREAMGCN_MIN_EDGES")
    retrain_edges: int = Field(100_000, ge=1, validation_alias="STREAMGCN_RETRAIN_EDGES")
    retrain_seconds: float = Field(3_600.0, gt=0, validation_alias="STREAMGCN_RETRAIN_SECONDS")
    model: Literal["lightgcn", "gcn"] = Field("lightgcn", validation_alias="STREAMGCN_MODEL")
    loss: Literal["softmax", "mse"] | None = Field(None, validation_alias="STREAMGCN_LOSS")
    embedding_dim: int = Field(128, ge=1, le=4_096, validation_alias="STREAMGCN_EMBEDDING_DIM")
    layers: int = Field(3, ge=1, le=8, validation_alias="STREAMGCN_LAYERS")
    epochs: int | None = Field(None, ge=1, validation_alias="STREAMGCN_EPOCHS")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", validation_alias="STREAMGCN_DEVICE"
    )

    def hyperparameters(self) -> Hyperparameters:
        """The part of the settings that training itself needs."""
        return Hyperparameters(
            model=self.model,
            loss=self.loss,
            dim=self.embedding_dim,
            layers=self.layers,
            epochs=self.epochs,
            device=self.device,
        )
