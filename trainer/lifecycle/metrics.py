"""The metrics of the trainer, and what is reported of a training that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from process.log import Figures
from process.metrics import Metric

if TYPE_CHECKING:  # torch comes with it, and the command imports this file for the metrics
    from trainer.lifecycle.manifest import Manifest

LIVE, REJECTED, FAILED = "live", "rejected", "failed"  # outcomes of a training

METRICS = (
    Metric(
        "trainings", "counter", "trainings", "Trainings by their outcome.", (LIVE, REJECTED, FAILED)
    ),
    Metric("users", "gauge", "model_users", "Users of the model that was trained last."),
    Metric("items", "gauge", "model_items", "Items of the model that was trained last."),
    Metric("edges", "gauge", "model_edges", "Edges of the model that was trained last."),
    Metric("recall@20", "gauge", "model_recall_at_20_ratio", "Recall on the held-out edges."),
    Metric("ndcg@20", "gauge", "model_ndcg_at_20_ratio", "NDCG on the held-out edges."),
    Metric(
        "popularity_ndcg@20",
        "gauge",
        "popularity_ndcg_at_20_ratio",
        "NDCG of the popular list on the same edges.",
    ),
    Metric("training_s", "gauge", "last_training_seconds", "Time of the last training."),
    Metric("trained_at", "gauge", "last_training_timestamp_seconds", "End of the last training."),
    Metric("step", "gauge", "training_step", "Step of the stage of the running training."),
    Metric("steps", "gauge", "training_steps", "Steps of the stage of the running training."),
    Metric("loss", "gauge", "training_loss", "Loss of the running training."),
    Metric("remaining_s", "gauge", "training_remaining_seconds", "Time left of this stage."),
)


def report(figures: Figures, manifest: Manifest) -> None:
    """Write the figures of a trained model to the log and the metrics."""
    took = {
        "training_s": sum(manifest.seconds.values()),
        "trained_at": manifest.trained_at / 1000,
    }
    figures.metrics.take(took)
    figures.metrics.count("trainings", REJECTED if manifest.rejected else LIVE)
    figures.report(
        "trained",
        users=manifest.users,
        items=manifest.items,
        edges=manifest.edges,
        **{name: round(value, 4) for name, value in manifest.metrics.items()},
        **{f"{name}_s": round(value, 1) for name, value in manifest.seconds.items()},
    )
