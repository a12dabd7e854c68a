import numpy as np
import pytest

from tests.graphs import Row, table
from trainer.graph import InteractionGraph
from trainer.weights import DAY_MS, Weighing

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


@pytest.mark.parametrize("events", ["last", "sum", "max"])
@pytest.mark.parametrize("half_life", [None, 1.0])
def test_an_edges_weight_is_the_same_in_one_batch_in_steps_and_one_by_one(
    events: str, half_life: float | None
) -> None:
    weighing = Weighing(events, (("buy", 5.0),), half_life)  # type: ignore[arg-type]
    expected = {
        "last": {"i": 5.0, "j": 4.0},
        "sum": {"i": 8.0 if half_life is None else 6.5, "j": 4.0},
        "max": {"i": 5.0, "j": 4.0},
    }[events]
    assert weights(weighing, ROWS) == expected
    assert weights(weighing, ROWS[:1], ROWS[1:]) == expected
    one = weighing.after(3.0, 0, 1.0 * weighing.factor("buy"), DAY_MS)
    assert one == pytest.approx(expected["i"])


@pytest.mark.parametrize("events", ["last", "sum", "max"])
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
