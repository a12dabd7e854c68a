from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from tests.graphs import Row, blocks, graph, pairs, store, table
from trainer.fit.fit import fit
from trainer.graph.interactions import InteractionGraph
from trainer.graph.weights import DAY_MS, Weighing
from trainer.model.hyperparameters import Hyperparameters

ROWS: list[Row] = [
    ("u", "i", 3.0, 0, "view"),
    ("u", "i", 1.0, DAY_MS, "buy"),
    ("u", "j", 4.0, 2 * DAY_MS, "view"),
]


def weights(weighing: Weighing, *batches: list[Row]) -> dict[str, float]:
    made = InteractionGraph(weighing=weighing)
    for rows in batches:
        made.extend(table(rows))
    items = made.item_ids.values.to_pylist()
    return {items[i]: float(w) for i, w in zip(made.items, made.weights, strict=True)}


@pytest.mark.parametrize("events", ["last", "sum", "max", "log"])
@pytest.mark.parametrize("half_life", [None, 1.0])
def test_an_edges_weight_is_the_same_in_one_batch_in_steps_and_one_by_one(
    events: str, half_life: float | None
) -> None:
    weighing = Weighing(events, (("buy", 5.0),), half_life)  # type: ignore[arg-type]
    expected = {
        "last": {"i": 5.0, "j": 4.0},
        "sum": {"i": 8.0 if half_life is None else 6.5, "j": 4.0},
        "max": {"i": 5.0, "j": 4.0},
        "log": {"i": 8.0 if half_life is None else 6.5, "j": 4.0},
    }[events]
    assert weights(weighing, ROWS) == expected
    assert weights(weighing, ROWS[:1], ROWS[1:]) == expected
    one = weighing.after(3.0, 0, 1.0 * weighing.factor("buy"), DAY_MS)
    assert one == pytest.approx(expected["i"])


@pytest.mark.parametrize("events", ["last", "sum", "max", "log"])
def test_a_removal_forgets_what_came_before(events: str) -> None:
    rows: list[Row] = [
        ("u", "i", 9.0, 0, "view"),
        ("u", "i", 1.0, 1, "remove"),
        ("u", "i", 2.0, 2, "view"),
    ]
    weighing = Weighing(events)  # type: ignore[arg-type]
    assert weights(weighing, rows) == {"i": 2.0}
    assert weights(weighing, rows[:1], rows[1:]) == {"i": 2.0}
    assert weights(weighing, rows[:2]) == {}


def test_a_strength_halves_with_each_half_life_and_is_never_negative() -> None:
    made = InteractionGraph(weighing=Weighing(half_life=1.0))
    made.extend(table([*ROWS[1:], ("u", "k", -2.0, 2 * DAY_MS, "view")]))
    np.testing.assert_allclose(made.strengths, [0.5, 4.0, 0.0])
    assert made.weights.tolist() == [1.0, 4.0, -2.0]


def test_counts_may_be_dampened_in_the_trainer_and_in_serving_alike(tmp_path: Path) -> None:
    rows: list[Row] = [("u", "i", 1.0), ("u", "j", 352_697.0), ("u", "i", 2.0), ("u", "k", -1.0)]
    weighing = Weighing("sum", dampened=True)
    made = InteractionGraph(weighing=weighing)
    made.extend(table(rows))
    np.testing.assert_allclose(made.strengths, np.log([4.0, 352_698.0, 1.0]), rtol=1e-6)
    stored, logged = UserEdges(weighing), UserEdges(weighing)
    stored.grow(store(tmp_path, rows))
    for at, (user, item, interaction) in enumerate(rows):  # type: ignore[misc]
        logged.apply(Event(user, item, interaction, 0, "view"), 0, Position(at, 0))
    strengths = {item: edge.weight for item, edge in logged.items("u").items()}
    assert strengths == pytest.approx({"i": np.log(4), "j": np.log(352_698), "k": 0.0})
    again = {item: edge.weight for item, edge in stored.items("u").items()}
    assert again == pytest.approx(strengths)
    block, _ = logged.block(["u"], np.arange(0), {"i": 0, "j": 1, "k": 2})
    np.testing.assert_allclose(sorted(block.strengths), sorted(strengths.values()), rtol=1e-6)


def test_counts_of_thousands_are_dampened_if_held_out_edges_say_so() -> None:
    """Each user plays items of its block some times, and one of three hits all night long."""
    rng = np.random.default_rng(0)
    plain = blocks(n_blocks=4, users=30, items=12, edges=8)
    rows = [(*pair[:2], float(rng.integers(1, 9))) for pair in pairs(plain)]
    nights = [(f"{b}-{u}", f"hit-{rng.integers(3)}", 90_000.0) for b in range(4) for u in range(30)]
    settings = Hyperparameters(vectors=8, learned_weight=0.0)
    counts = fit(graph([*rows, *nights]), settings)
    assert counts.settings.dampening == 1
    assert counts.embeddings.dampened
    assert counts.kept.strengths.max() < 12
    ratings = fit(graph(rows), settings)
    assert ratings.settings.dampening == 0
    assert not ratings.embeddings.dampened
    assert fit(graph([*rows, *nights]), replace(settings, dampening=0.0)).settings.dampening == 0


def test_serving_takes_strengths_as_the_model_in_use_does(tmp_path: Path) -> None:
    edges = UserEdges(Weighing())
    edges.grow(store(tmp_path, [("u", "i", 7.0)]))
    edges.apply(Event("v", "i", 3.0, 0, "view"), 0, Position(1, 0))
    for on, expected in ((False, [7.0, 3.0]), (True, np.log1p([7.0, 3.0])), (False, [7.0, 3.0])):
        edges.dampen(on)
        block, _ = edges.block(["u", "v"], np.arange(1), {"i": 0})
        np.testing.assert_allclose(block.strengths, expected, rtol=1e-6)
