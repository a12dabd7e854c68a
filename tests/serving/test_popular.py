from pathlib import Path

import numpy as np

from serving.edges.user_edges import UserEdges
from tests.graphs import graph, store
from trainer.graph.popularity import HALF_LIFE_MS, recent
from trainer.graph.weights import Weighing


def test_evaluate_measures_new_users_by_the_list_that_serving_calls_popular(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{rng.integers(99)}", f"i{rng.integers(20)}", 1.0, int(rng.integers(20 * HALF_LIFE_MS)))
        for _ in range(1_000)
    ]
    edges, made = UserEdges(Weighing()), graph(rows)
    edges.grow(store(tmp_path, rows))
    items, counts, _ = edges.popular(20)
    measured = dict(zip(made.item_ids.values.to_pylist(), recent(made).tolist(), strict=True))
    assert items == sorted(measured, key=lambda item: -measured[item])
    np.testing.assert_allclose(counts, [measured[item] for item in items], rtol=1e-5)


def test_dislikes_are_not_popular() -> None:
    made = graph([("u", "i", -1.0), ("v", "i", -1.0), ("u", "j", 1.0), ("v", "k", 0.0)])
    assert recent(made).tolist() == [0.0, 1.0, 0.0]
