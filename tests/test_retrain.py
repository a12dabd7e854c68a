import threading
from pathlib import Path

from consumer.edges import EdgeStore
from tests.graphs import append
from trainer.retrain import Retrain
from trainer.settings import TrainerSettings


def test_retraining_is_due_at_first_then_after_enough_new_edges_or_a_doubling(
    tmp_path: Path,
) -> None:
    settings = TrainerSettings(
        edge_store=str(tmp_path / "edges"), model_store=str(tmp_path / "models"),
        kafka_topic="t", min_edges=10, retrain_edges=30, epochs=1, embedding_dim=4,
    )  # fmt: skip
    trainer = Retrain(settings, threading.Event())
    written = EdgeStore(settings.edge_store, "t")
    trained, before = [], 0
    for edges in (9, 10, 15, 20, 35, 49, 50, 60, 80):
        append(written, [("u", f"i{n}") for n in range(before, edges)], before)
        before = edges
        trainer._read()
        if trainer._due():
            trainer._retrain()
            trained.append(edges)
    assert trained == [10, 20, 49, 80]  # min_edges, doubled, past 30 new ones or doubled, 30 new
