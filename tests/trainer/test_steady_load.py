"""Retraining after retraining under a steady load: the gate must not reject or pass them all."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from consumer.edge.store import Watermark
from tests.graphs import Row, blocks, pairs, table
from tests.trainer.test_gate import worthless
from trainer.embedding.embeddings import Embeddings
from trainer.fit.fit import Fit, fit, fit_over
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import Weighing
from trainer.lifecycle import candidate as training
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.manifest import Manifest
from trainer.lifecycle.snapshots import Snapshots
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

SETTINGS = Hyperparameters(dim=16, epochs=30, negatives=64).filled({"vectors": 16}).usual()
DAY = 86_400_000
READ = Watermark()


def shoppers(repeats: float, users: int = 400, tastes: int = 4, items: int = 40) -> Iterator[Row]:
    """One event a second of users who mostly touch items of their own taste, some items much more
    than others; this share of the events repeats an item that the user has."""
    rng = np.random.default_rng(1)
    chances = rng.random(items) ** 2 + 0.05
    chances /= chances.sum()
    own: dict[int, list[str]] = {user: [] for user in range(users)}
    now = int(time.time() * 1000) - 30 * DAY
    while True:
        user, now = int(rng.integers(users)), now + 1_000
        if own[user] and rng.random() < repeats:
            item = own[user][rng.integers(len(own[user]))]
        else:
            taste = user % tastes if rng.random() < 0.85 else rng.integers(tastes)
            item = f"{taste}-{rng.choice(items, p=chances)}"
            own[user].append(item)
        yield f"u{user}", item, 1.0, now


def retrained(graph: InteractionGraph, snapshots: Snapshots) -> Manifest:
    """One training; what passes the gate goes live."""
    version = snapshots.marks.live()
    live = snapshots.read(version) if version else None
    made = candidate(graph, SETTINGS, snapshots, live, quiet, READ)
    if not made.manifest.rejected:
        snapshots.write(made)
        snapshots.promote(made.manifest.version)
    return made.manifest


def test_where_users_repeat_items_the_gate_does_not_reject_one_retraining_after_another(
    tmp_path: Path,
) -> None:
    events = shoppers(repeats=0.8)
    graph, snapshots = InteractionGraph(), Snapshots(str(tmp_path))
    graph.extend(table([next(events) for _ in range(4_000)]))
    assert not retrained(graph, snapshots).rejected
    reasons = []
    for _ in range(10):
        graph.extend(table([next(events) for _ in range(1_250)]))
        reasons.append(retrained(graph, snapshots).rejected)
    assert len(list(filter(None, reasons))) <= 1, reasons


@pytest.mark.parametrize("ahead", [0, DAY - 1])
def test_an_event_from_a_clock_that_is_ahead_does_not_silence_the_gate(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time() * 1000)
    edges = [(user, item, 1.0, now - DAY + n) for n, (user, item, *_) in enumerate(pairs(blocks()))]
    graph, snapshots = InteractionGraph(), Snapshots(str(tmp_path))
    graph.extend(table([*edges[::2], ("0-0", "0-0", 1.0, now + ahead)]))
    assert not retrained(graph, snapshots).rejected
    graph.extend(table(edges[1::2]))

    def bad(*arguments: object) -> Fit:
        return worthless(fit(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(training, "fit_kept", bad)
    assert "on edges that are new to the live model" in retrained(graph, snapshots).rejected


def models() -> int:
    """How many models are in memory."""
    gc.collect()
    return sum(issubclass(type(each), Embeddings) for each in gc.get_objects())


def test_no_model_is_in_memory_any_more_when_the_one_over_the_whole_graph_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = [(user, item, 1.0, n) for n, (user, item, *_) in enumerate(pairs(blocks()))]
    graph, snapshots = InteractionGraph(), Snapshots(str(tmp_path))
    graph.extend(table(edges[::2]))
    version = retrained(graph, snapshots).version
    graph.extend(table(edges[1::2]))
    before, more = models(), []

    def counting(*arguments: object) -> Embeddings:
        more.append(models() - before)
        return fit_over(*arguments)  # type: ignore[arg-type]  # passed on as given

    monkeypatch.setattr(training, "fit_over", counting)
    candidate(graph, SETTINGS, snapshots, snapshots.read(version), quiet, READ)
    assert more == [0]


def test_an_event_from_a_clock_that_is_ahead_does_not_age_all_others() -> None:
    now = int(time.time() * 1000)
    graph = InteractionGraph(weighing=Weighing(half_life=1.0))
    graph.extend(table([("u", "i", 1.0, now), ("v", "i", 1.0, now + DAY)]))
    np.testing.assert_allclose(graph.strengths, 1.0, rtol=1e-3)
    assert graph.timestamps.max() <= int(time.time() * 1000)
