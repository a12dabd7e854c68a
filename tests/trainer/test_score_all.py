"""Ranks that have the tables of their own items score as one process that has all."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.graphs import graph
from tests.ranks import together
from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own
from trainer.embedding.scores import score_all
from trainer.fit.evaluate import scorer
from trainer.fit.fit import fit_all
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.all_items import TABLES, with_all_items
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.warm import aligned
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet
from trainer.model.rows import Rows
from trainer.model.rows import together as rows_together
from trainer.ranks import ALONE, Ranks

N_USERS, N_ITEMS, VECTORS, DIM, KEPT = 9, 11, 3, 2, 4
KINDS = [*product((True, False), (0.0, 0.7), (0, DIM))]  # cosine, recency, columns of base


def model(cosine: bool, recency: float, base: int) -> BlendEmbeddings:
    """Tables of random numbers."""
    draw = torch.Generator().manual_seed(1)

    def table(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    tensors = {
        "base": table(N_USERS, base),
        "incoming": table(N_ITEMS, VECTORS + DIM),
        "outgoing": table(N_ITEMS, VECTORS + DIM),
        "squares": table(VECTORS).square(),
        "neighbors": torch.randint(N_ITEMS, (N_ITEMS, KEPT), generator=draw).int(),
        "similarities": table(N_ITEMS, KEPT).abs(),
    }
    return BlendEmbeddings("blend", 2, cosine, tensors, recency)


def edges(users: Tensor) -> Own:
    """Edges of users: user n has n of them."""
    draw = torch.Generator().manual_seed(2)
    items = torch.randint(N_ITEMS, (N_USERS, N_USERS), generator=draw)
    strengths = torch.rand(N_USERS, N_USERS, generator=draw) + 0.1
    counts = users.tolist()
    starts = torch.tensor([0, *counts]).cumsum(0)
    items, strengths = (
        torch.cat([table[n, :n] for n in counts] or [table[0, :0]]) for table in (items, strengths)
    )
    ages = torch.cat([torch.arange(n - 1, -1, -1) for n in counts] or [torch.arange(0)])
    return Own(starts, items, strengths, ages)


def share(whole: BlendEmbeddings, ranks: Ranks, users: slice) -> BlendEmbeddings:
    """What a rank has of a model."""
    rows = {name: whole.tensors[name][ranks.own] for name in TABLES & whole.tensors.keys()}
    tensors = whole.tensors | rows | {"base": whole.tensors["base"][users]}
    return BlendEmbeddings("blend", 2, whole.cosine, tensors, whole.recency)


def scored(ranks: Ranks, folder: Path) -> None:
    """The second of three ranks has no users."""
    own = [slice(0, 4), slice(4, 4), slice(4, N_USERS)][ranks.rank]
    users = torch.arange(N_USERS)[own]
    made = {}
    for number, kind in enumerate(KINDS):
        part = share(model(*kind), ranks, own)
        numbers = torch.arange(len(users))
        made[f"{number}"] = score_all(part, numbers, edges(users), N_ITEMS, ranks)
    nobody = torch.arange(0)
    made["nobody"] = score_all(part, nobody, edges(nobody), N_ITEMS, ranks)
    save_file(made, folder / f"{ranks.rank}.safetensors")


def test_ranks_with_own_items_score_as_one_process(tmp_path: Path) -> None:
    together("tests.trainer.test_score_all:scored", tmp_path, size=3)
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(3)]
    users = torch.arange(N_USERS)
    for number, kind in enumerate(KINDS):
        expected = model(*kind).score(users, edges(users))
        assert expected.std() > 0.1
        of_ranks = torch.cat([each[f"{number}"] for each in found])
        torch.testing.assert_close(of_ranks, expected, msg=f"{kind}")
    assert [len(each["nobody"]) for each in found] == [0, 0, 0]


def written(ranks: Ranks, folder: Path) -> None:
    """What the first rank writes of a model of which each rank has a share."""
    whole = model(True, 0.7, DIM)
    start = {"basis": torch.arange(N_ITEMS)[ranks.own][:, None].half(), "users": torch.zeros(2, 1)}
    manifest = Manifest("", "blend", 2, True, 0, 0, 0, 0, 0, {}, {}, {}, {})
    made = with_all_items(
        Snapshot(manifest, share(whole, ranks, slice(None)), [], [], start), ranks
    )
    if ranks.first:
        save_file(made.embeddings.tensors | made.start, folder / "made.safetensors")


def test_the_first_rank_has_the_items_of_all_when_a_snapshot_is_written(tmp_path: Path) -> None:
    together("tests.trainer.test_score_all:written", tmp_path, size=3)
    found = load_file(tmp_path / "made.safetensors")
    for name, of in model(True, 0.7, DIM).tensors.items():
        assert torch.equal(found[name], of), name
    assert found["basis"][:, 0].tolist() == [*range(N_ITEMS)]
    assert len(found["users"]) == 2


def lives(made: InteractionGraph) -> list[Snapshot]:
    """A blend and a gcn, whose first item the graph has no more, and which lack the graph's last
    one."""
    manifest = Manifest("", "blend", 2, True, 0, 0, 0, 0, 0, {}, {}, {}, {})
    users = pa.array([f"u{n}" for n in range(N_USERS)])
    items = pa.array(["gone", *(f"i{n}" for n in range(1, N_ITEMS))])
    gcn = fit_all(made, Hyperparameters("gcn", dim=4, epochs=2, layers=1).usual(), quiet)
    return [
        Snapshot(manifest, model(True, 0.7, DIM), users, items),
        Snapshot(manifest, gcn, made.user_ids.values, made.item_ids.values),
    ]


def compared(ranks: Ranks, folder: Path) -> None:
    """What the gate scores users by, of live models with other numbers of items."""
    rows = [(f"u{n % N_USERS}", f"i{n % 5 + n % N_USERS % 6 + 1}", 1.0, n) for n in range(40)]
    made = graph([*rows[::-1], ("u0", "fresh", 1.0, 99)])
    shared = made.shared(ranks)
    found = {"items": shared.item_ids.values.to_pylist()}
    for number, live in enumerate(lives(made)):
        scores = scorer(aligned(live, shared).embeddings, shared)(torch.arange(shared.n_users))
        found |= {f"{user} {number}": row.tolist() for user, row in
                  zip(shared.user_ids.values.to_pylist(), scores, strict=True)}  # fmt: skip
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def test_ranks_score_a_live_model_of_either_kind_as_one_process(tmp_path: Path) -> None:
    together("tests.trainer.test_score_all:compared", tmp_path)
    found: dict[str, list[float]] = {}
    for rank in range(2):
        found |= json.loads((tmp_path / f"{rank}.json").read_text())
    compared(ALONE, tmp_path)
    expected = json.loads((tmp_path / "0.json").read_text())
    assert found.pop("items") == expected.pop("items")
    assert found.keys() == expected.keys()
    assert len(found) == 2 * N_USERS
    for name, scores in expected.items():
        assert found[name] == pytest.approx(scores, abs=1e-5), name


def test_neighbours_that_are_gone_bring_nothing_to_another_item() -> None:
    made = graph([(f"u{n % N_USERS}", f"i{n % 10 + 1}", 1.0, n) for n in range(40)])
    live, _ = lives(made)
    before, after = live.embeddings.tensors, aligned(live, made).embeddings.tensors
    names = live.item_ids.to_pylist()
    for number, item in enumerate(made.item_ids.values.to_pylist()):
        old = names.index(item)
        gone = before["neighbors"][old] == 0
        assert torch.equal(after["similarities"][number] == 0, gone)


class Second(Ranks):
    """One of three ranks."""

    size, rank = 3, 1


def test_rows_of_own_items_are_put_together_as_all_rows_are() -> None:
    draw = torch.Generator().manual_seed(3)
    parts = [
        (Rows(torch.randint(N_ITEMS, (N_ITEMS, 5), generator=draw).int(),
              torch.rand(N_ITEMS, 5, generator=draw)), weight)
        for weight in (0.5, 2.0)
    ]  # fmt: skip
    expected = rows_together(parts, N_ITEMS, 7, ALONE)
    own = [(Rows(*(of[Second().own] for of in rows)), weight) for rows, weight in parts]
    found = rows_together(own, N_ITEMS, 7, Second())
    for all_rows, own_rows in zip(expected, found, strict=True):
        assert torch.equal(all_rows[Second().own, : own_rows.shape[1]], own_rows)
