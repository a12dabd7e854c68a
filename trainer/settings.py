"""Settings of the trainer, on top of the consumer's."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from consumer.settings import ConsumerSettings
from trainer.hyperparameters import Hyperparameters
from trainer.weights import Weighing


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
        description="New or removed edges (pairs of user and item) that make a retraining due; so "
        "does a doubling.",
    )
    retrain_seconds: float = Field(
        3_600.0,
        gt=0,
        validation_alias="STREAMGCN_RETRAIN_SECONDS",
        description="Seconds after which any event makes a retraining due, also a repeated one.",
    )
    edge_weight: Literal["last", "sum", "max", "log"] = Field(
        "last",
        validation_alias="STREAMGCN_EDGE_WEIGHT",
        description="An edge's weight: its last event's interaction, their sum, or the largest "
        "(max); log is the logarithm of 1 + their sum, for counts.",
    )
    type_weights: str = Field(
        "",
        pattern=r"^([^=,]+=\d+(\.\d+)?(,[^=,]+=\d+(\.\d+)?)*)?$",
        validation_alias="STREAMGCN_TYPE_WEIGHTS",
        description="Factors of interactions by type, as in view=1,purchase=5; others count 1.",
    )
    half_life_days: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_HALF_LIFE_DAYS",
        description="Days in which an event's weight halves; never if unset.",
    )
    model: Literal["blend", "lightgcn", "gcn"] = Field(
        "blend",
        validation_alias="STREAMGCN_MODEL",
        description="blend (transitions, neighbours, low pass, LightGCN), lightgcn, or gcn "
        "(GCNConv layers with ReLU, for ratings).",
    )
    loss: Literal["softmax", "bpr", "mse"] | None = Field(
        None,
        validation_alias="STREAMGCN_LOSS",
        description="softmax (the default of blend and lightgcn), bpr, or mse (of gcn).",
    )
    vectors: int | None = Field(
        None,
        ge=1,
        le=8_192,
        validation_alias="STREAMGCN_VECTORS",
        description="Singular vectors of the low pass; if unset 256, 512 or 1024.",
    )
    neighbors_kept: int = Field(
        256,
        ge=1,
        validation_alias="STREAMGCN_NEIGHBORS_KEPT",
        description="Neighbours of an item that are kept, the nearest.",
    )
    neighbors_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_NEIGHBORS_WEIGHT",
        description="Weight of the neighbours filter in the blend.",
    )
    neighbors_user_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_USER_POWER",
        description="Its exponent of the degree of the users between.",
    )
    neighbors_own_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_OWN_POWER",
        description="Its exponent of the user's own items' degree.",
    )
    neighbors_item_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_ITEM_POWER",
        description="Its exponent of the recommended item's degree.",
    )
    low_pass_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_LOW_PASS_WEIGHT",
        description="Weight of the low-pass filter in the blend.",
    )
    low_pass_normalization: float | None = Field(
        None,
        ge=0,
        le=1,
        validation_alias="STREAMGCN_LOW_PASS_NORMALIZATION",
        description="Its exponent of the degrees that an edge is divided by: 0.5 for the symmetric "
        "normalisation, 0 for none.",
    )
    low_pass_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_LOW_PASS_POWER",
        description="Its exponent of items' degrees.",
    )
    low_pass_damping: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_LOW_PASS_DAMPING",
        description="Its cut: a vector of singular value s counts s^2 / (s^2 + this).",
    )
    learned_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_LEARNED_WEIGHT",
        description="Weight of the learned part in the blend.",
    )
    learned_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_LEARNED_POWER",
        description="Exponent of the item's degree in its scores.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_TEMPERATURE",
        description="Of its softmax.",
    )
    negatives: int = Field(
        1_024,
        ge=1,
        validation_alias="STREAMGCN_NEGATIVES",
        description="Items that it samples in each step, for all users.",
    )
    negative_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEGATIVE_POWER",
        description="Its sampled items are drawn by degree to this power.",
    )
    edge_drop: float | None = Field(
        None,
        ge=0,
        lt=1,
        validation_alias="STREAMGCN_EDGE_DROP",
        description="Share of the edges that it leaves out of the graph in each step.",
    )
    embedding_dim: int = Field(
        128,
        ge=1,
        le=4_096,
        validation_alias="STREAMGCN_EMBEDDING_DIM",
        description="Dimensions of a learned embedding.",
    )
    layers: int = Field(
        3, ge=1, le=8, validation_alias="STREAMGCN_LAYERS", description="Graph convolutions."
    )
    epochs: int | None = Field(
        None,
        ge=1,
        validation_alias="STREAMGCN_EPOCHS",
        description="Full-batch steps; 150, or 200 of gcn, if unset.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        validation_alias="STREAMGCN_DEVICE",
        description="auto (a GPU if there is one), cpu, cuda or cuda:N; for training and serving.",
    )

    @field_validator("loss")
    @classmethod
    def _mse_predicts_interactions(cls, loss: str | None, others: ValidationInfo) -> str | None:
        if loss == "mse" and others.data.get("model") == "blend":
            raise ValueError("it cannot be blended; set STREAMGCN_MODEL to gcn or lightgcn with it")
        return loss

    @field_validator("learned_weight")
    @classmethod
    def _something_is_left(cls, weight: float | None, others: ValidationInfo) -> float | None:
        weights = [weight, *(others.data.get(f"{n}_weight") for n in ("neighbors", "low_pass"))]
        if weights == [0.0, 0.0, 0.0] and others.data.get("model") == "blend":
            raise ValueError("all three weights are 0; leave one unset or above 0")
        return weight

    def weighing(self) -> Weighing:
        """How events make edges."""
        pairs = (part.split("=") for part in self.type_weights.split(",") if part)
        types = tuple((name, float(value)) for name, value in pairs)
        return Weighing(self.edge_weight, types, self.half_life_days)

    def hyperparameters(self) -> Hyperparameters:
        """The part of the settings that training itself needs."""
        same = {field.name for field in fields(Hyperparameters)} & type(self).model_fields.keys()
        return Hyperparameters(
            dim=self.embedding_dim, **{name: getattr(self, name) for name in same}
        )
