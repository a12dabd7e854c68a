"""Ranks that read an edge store number its items as one process does."""

from __future__ import annotations

import json
from pathlib import Path

from tests.graphs import append, store
from tests.ranks import together
from trainer.graph.stored import StoredGraph
from trainer.graph.weights import Weighing
from trainer.ranks import ALONE, Ranks

ROWS = [(f"u{n * 7 % 40}", f"i{n * n % 89}", 1.0, n) for n in range(300)]


def numbered(ranks: Ranks, folder: Path) -> None:
    """The items by their numbers, after a first reading and after a second one."""
    edges = folder / f"edges-{ranks.rank}"
    made = store(edges, ROWS[:100])
    graph = StoredGraph(str(edges), "t", Weighing(), None, ranks)
    found = []
    for _ in range(2):
        assert [*graph.read()]
        graph.agree()
        found.append(graph.graph.item_ids.values.to_pylist())
        if len(found) == 1:
            append(made, ROWS[100:], 100)
    users = graph.graph.n_users
    (folder / f"{ranks.rank}.json").write_text(json.dumps({"items": found, "users": users}))


def test_ranks_number_items_in_the_order_in_which_one_process_meets_them(tmp_path: Path) -> None:
    together("tests.trainer.test_numbers_of_items:numbered", tmp_path, size=3)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    (tmp_path / "alone").mkdir()
    numbered(ALONE, tmp_path / "alone")
    expected = json.loads((tmp_path / "alone" / "0.json").read_text())
    assert [each["items"] for each in found] == [expected["items"]] * 3
    assert sum(each["users"] for each in found) == expected["users"] == 40
    assert all(each["users"] for each in found)
