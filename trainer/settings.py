"""Settings of the trainer, on top of the consumer's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from consumer.settings import ConsumerSettings
from trainer.graph.weights import Weighing

if TYPE_CHECKING:
    from trainer.model.hyperparameters import Hyperparameters

PREDICT = ("lightgcn", "gcn")  # models that can be trained to predict interactions
REMOVED = {  # variables of before -> names in the file of STREAMGCN_MODEL_FILE
    f"STREAMGCN_{name.upper()}": name
    for name in (
        "vectors", "temperature", "negatives", "negative_power", "edge_drop", "layers",
        "neighbors_kept", "neighbors_weight", "neighbors_user_power", "neighbors_own_power",
        "neighbors_item_power", "low_pass_weight", "low_pass_normalization", "low_pass_power",
        "low_pass_damping", "learned_weight", "learned_power",
    )
} | {"STREAMGCN_EMBEDDING_DIM": "dim"}  # fmt: skip


class TrainerSettings(ConsumerSettings):
    """When to train, what to train, where snapshots go."""

    removed: ClassVar[Mapping[str, str]] = {
        variable: f"write the line `{name} = VALUE` in a file, and name the file in "
        "STREAMGCN_MODEL_FILE"
        for variable, name in REMOVED.items()
    }

    model_store: str = Field(
        "./data/models",
        min_length=1,
        description="Model snapshots: a folder, or s3://, gs:// or az:// with bucket and path.",
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
        description="blend (transitions, neighbours, low pass, learned part), lightgcn, or gcn "
        "(GCNConv layers with ReLU, for ratings).",
    )
    loss: Literal["softmax", "bpr", "mse"] | None = Field(
        None,
        validation_alias="STREAMGCN_LOSS",
        description="softmax (the default of blend and lightgcn), bpr (the learned part is then "
        "LightGCN), or mse (of gcn).",
    )
    model_file: Path | None = Field(
        None,
        validation_alias="STREAMGCN_MODEL_FILE",
        description="TOML file of numbers of the model that are not to be chosen; `streamgcn "
        "evaluate` prints one. A line `layers`, `negative_power` or `edge_drop` makes the learned "
        "part LightGCN.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        validation_alias="STREAMGCN_EPOCHS",
        description="Passes over the edges in a training. If unset: 10 where the learned part "
        "predicts next items, 200 with LightGCN and with the gcn.",
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
        if loss == "mse" and others.data.get("model") not in PREDICT:
            raise ValueError("it cannot be blended; set STREAMGCN_MODEL to gcn or lightgcn with it")
        return loss

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
        """What is trained and how, with the numbers of STREAMGCN_MODEL_FILE; what of it changes
        nothing is said.

        Raises:
            SettingsError: the file cannot be read, or has what is not allowed.
        """
        # These load torch, which takes seconds that most commands need not wait for.
        from trainer.model import unread
        from trainer.model.hyperparameters import Hyperparameters
        from trainer.model.model_file import filled_by

        dampening = None if self.edge_weight is None else float(self.edge_weight == "log")
        made = Hyperparameters(
            self.model, self.loss, self.device, dampening=dampening, epochs=self.epochs
        )
        if self.model_file:
            made = filled_by(self.model_file, made)
        unread.warn(made)
        return made
