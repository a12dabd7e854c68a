"""Settings of the trainer, on top of the consumer's."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from consumer.settings import ConsumerSettings
from trainer.graph.weights import Weighing
from trainer.model.hyperparameters import Hyperparameters


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
        description="New or removed edges (pairs of user and item) that make a retraining due; "
        "twice as many edges make it due too.",
    )
    retrain_seconds: float = Field(
        3_600.0,
        gt=0,
        validation_alias="STREAMGCN_RETRAIN_SECONDS",
        description="Seconds after which any event makes a retraining due, also a repeated event.",
    )
    edge_weight: Literal["last", "sum", "max", "log"] | None = Field(
        None,
        validation_alias="STREAMGCN_EDGE_WEIGHT",
        description="Weight of an edge, from the interactions of its events: the last one, their "
        "sum, the largest (max), or log: log(1 + sum), which suits counts. If unset: the last one, "
        "or log(1 + last) where that is better on held-out edges.",
    )
    type_weights: str = Field(
        "",
        pattern=r"^([^=,]+=\d+(\.\d+)?(,[^=,]+=\d+(\.\d+)?)*)?$",
        validation_alias="STREAMGCN_TYPE_WEIGHTS",
        description="Factor of the interaction by type, as in view=1,purchase=5; others: 1.",
    )
    half_life_days: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_HALF_LIFE_DAYS",
        description="Days in which the weight of an event halves; unset: never.",
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
        description="Low pass: singular vectors; unset: 256, 512 or 1024.",
    )
    neighbors_kept: int = Field(
        256,
        ge=1,
        validation_alias="STREAMGCN_NEIGHBORS_KEPT",
        description="Nearest neighbours that are kept of each item.",
    )
    neighbors_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_NEIGHBORS_WEIGHT",
        description="Neighbours: weight in the blend.",
    )
    neighbors_user_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_USER_POWER",
        description="Neighbours: exponent of the degree of the users between two items.",
    )
    neighbors_own_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_OWN_POWER",
        description="Neighbours: exponent of the degree of the user's own items.",
    )
    neighbors_item_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEIGHBORS_ITEM_POWER",
        description="Neighbours: exponent of the degree of the recommended item.",
    )
    low_pass_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_LOW_PASS_WEIGHT",
        description="Low pass: weight in the blend.",
    )
    low_pass_normalization: float | None = Field(
        None,
        ge=0,
        le=1,
        validation_alias="STREAMGCN_LOW_PASS_NORMALIZATION",
        description="Low pass: exponent of the degrees that an edge is divided by; 0.5 is the "
        "symmetric normalisation, 0 is none.",
    )
    low_pass_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_LOW_PASS_POWER",
        description="Low pass: exponent of the degree of the items.",
    )
    low_pass_damping: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_LOW_PASS_DAMPING",
        description="Low pass: a vector of singular value s counts s^2 / (s^2 + damping).",
    )
    learned_weight: float | None = Field(
        None,
        ge=0,
        validation_alias="STREAMGCN_LEARNED_WEIGHT",
        description="LightGCN: weight in the blend.",
    )
    learned_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_LEARNED_POWER",
        description="LightGCN: exponent of the degree of the item in the scores.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_TEMPERATURE",
        description="LightGCN: temperature of the softmax.",
    )
    negatives: int = Field(
        1_024,
        ge=1,
        validation_alias="STREAMGCN_NEGATIVES",
        description="LightGCN: items sampled in each step, the same for all users.",
    )
    negative_power: float | None = Field(
        None,
        ge=0,
        le=2,
        validation_alias="STREAMGCN_NEGATIVE_POWER",
        description="LightGCN: items are sampled by their degree to this power.",
    )
    edge_drop: float | None = Field(
        None,
        ge=0,
        lt=1,
        validation_alias="STREAMGCN_EDGE_DROP",
        description="Share of the edges left out of the graph in each step of a training.",
    )
    embedding_dim: int = Field(
        128,
        ge=1,
        le=4_096,
        validation_alias="STREAMGCN_EMBEDDING_DIM",
        description="Dimensions of the embeddings of LightGCN and the gcn.",
    )
    layers: int = Field(
        3,
        ge=1,
        le=8,
        validation_alias="STREAMGCN_LAYERS",
        description="Graph convolutions of LightGCN and the gcn.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        validation_alias="STREAMGCN_EPOCHS",
        description="Full-batch training steps; unset: 150, of the gcn 200.",
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
        dampened = self.edge_weight == "log"
        events: Literal["last", "sum", "max"] = "last"
        if self.edge_weight:
            events = "sum" if self.edge_weight == "log" else self.edge_weight
        return Weighing(events, types, self.half_life_days, dampened)

    def hyperparameters(self) -> Hyperparameters:
        """The part of the settings that training itself needs."""
        same = {field.name for field in fields(Hyperparameters)} & type(self).model_fields.keys()
        return Hyperparameters(
            dim=self.embedding_dim,
            dampening=None if self.edge_weight is None else float(self.edge_weight == "log"),
            **{name: getattr(self, name) for name in same},
        )
