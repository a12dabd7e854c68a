"""Settings of the trainer, on top of the consumer's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from consumer.settings import ConsumerSettings
from trainer.hyperparameters import Hyperparameters


class TrainerSettings(ConsumerSettings):
    """When to train, what to train, where snapshots go."""

    model_store: str = Field(
        "./data/models", min_length=1, description="Folder of the model snapshots."
    )
    min_edges: int = Field(
        1_000,
        ge=1,
        validation_alias="STREAMGCN_MIN_EDGES",
        description="Edges before the first training.",
    )
    retrain_edges: int = Field(
        100_000,
        ge=1,
        validation_alias="STREAMGCN_RETRAIN_EDGES",
        description="New events that make a retraining due; so does a doubling.",
    )
    retrain_seconds: float = Field(
        3_600.0,
        gt=0,
        validation_alias="STREAMGCN_RETRAIN_SECONDS",
        description="Seconds after which any new event makes a retraining due.",
    )
    model: Literal["lightgcn", "gcn"] = Field(
        "lightgcn",
        validation_alias="STREAMGCN_MODEL",
        description="lightgcn, or gcn (GCNConv layers with ReLU, for ratings).",
    )
    loss: Literal["softmax", "mse"] | None = Field(
        None,
        validation_alias="STREAMGCN_LOSS",
        description="softmax (the default of lightgcn) or mse (of gcn).",
    )
    embedding_dim: int = Field(
        128,
        ge=1,
        le=4_096,
        validation_alias="STREAMGCN_EMBEDDING_DIM",
        description="Dimensions of an embedding.",
    )
    layers: int = Field(
        3, ge=1, le=8, validation_alias="STREAMGCN_LAYERS", description="Graph convolutions."
    )
    epochs: int | None = Field(
        None,
        ge=1,
        validation_alias="STREAMGCN_EPOCHS",
        description="Full-batch steps; 150 for lightgcn, 200 for gcn if unset.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        validation_alias="STREAMGCN_DEVICE",
        description="auto (a GPU if there is one), cpu, cuda or cuda:N; for training and serving.",
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
