"""Several ranks learn what one process learns of the same edges."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file

from process.health import Health
from tests.graphs import Row, graph, pairs, table
from tests.ranks import together
from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import measure, ndcgs, scorer
from trainer.fit.fit import fit
from trainer.graph import whole
from trainer.graph.arrays import Int64s
from trainer.graph.holdout import newest_edges
from trainer.graph.interactions import InteractionGraph
from trainer.graph.numbering import agree
from trainer.graph.own_users import own_rows
from trainer.graph.weights import Weighing
from trainer.lifecycle.all_items import TABLES
from trainer.lifecycle.together import Together
from trainer.model import blend, lightgcn, next_item
from trainer.model.batches import Batches
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.low_pass import spectrum
from trainer.model.neighbors import neighbors
from trainer.model.progress import quiet
from trainer.model.rows import Rows
from trainer.model.rows_of_ranks import summed
from trainer.model.sequences import Sequences
from trainer.model.transitions import transitions
from trainer.ranks import ALONE, Array, Ranks

CPU = torch.device("cpu")
USERS, TASTES, ITEMS, EDGES = 1_500, 12, 40, 22
NEXT = Hyperparameters(dim=16, negatives=128, learned_order=1.0, recency=1.0).usual()
LIGHT = Hyperparameters("lightgcn", dim=16, epochs=30, negatives=64, layers=2).usual()
CHOSEN = Hyperparameters(dim=16, negatives=128, vectors=32, epochs=4)


def walks() -> InteractionGraph:
    """Users who walk on through the items of their taste, and now and then look at any item."""
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, float, int]] = []
    for user in range(USERS):
        taste, at, seen = user % TASTES, int(rng.integers(ITEMS)), set[int]()
        while len(seen) < EDGES:
            at = (at + int(rng.integers(1, 4))) % ITEMS
            item = taste * ITEMS + at if rng.random() < 0.8 else int(rng.integers(TASTES * ITEMS))
            if item not in seen:
                seen.add(item)
                rows.append((f"u{user}", f"i{item}", 1.0 + user % 3, len(seen)))
    return graph(rows)


def halves(ranks: Ranks = ALONE) -> tuple[InteractionGraph, InteractionGraph]:
    """What is learned from, and each user's newest edges."""
    made = walks()
    newest = newest_edges(made, 0.1)
    kept, held_out = made.subset(~newest), made.subset(newest)
    return kept.shared(ranks), held_out.shared(ranks)


def dense(rows: Rows, of: InteractionGraph) -> torch.Tensor:
    own = torch.zeros(len(rows.values), of.n_items)
    return of.ranks.whole(own.scatter_add_(1, rows.columns.long(), rows.values))


def filters(made: InteractionGraph) -> dict[str, torch.Tensor]:
    near = neighbors(made, 0.7, 0.5, 0.2, made.n_items)
    after = transitions(made, 0.5, 0.2, 0.5, 0.1, 10, made.n_items)
    found = spectrum(made, 20, CPU)
    vectors = made.ranks.whole(found.vectors)
    return {
        "neighbors": dense(near, made),
        # Which of equal ones is kept may differ.
        "nearest": made.ranks.whole(neighbors(made, 0.7, 0.5, 0.2, 30).values.sort(1).values),
        "transitions": dense(after, made),
        "values": found.values,
        "low_pass": vectors * found.values @ vectors.T,
        "strengths": torch.from_numpy(made.item_strengths),
    }


def learned(kept: InteractionGraph, held_out: InteractionGraph) -> dict[str, float]:
    """Recall of each kind of learned part."""
    next_ones = next_item.fit(kept, NEXT, quiet).embeddings(kept, NEXT)
    light = lightgcn.fit(kept, LIGHT, quiet).embeddings(kept, LIGHT)
    return {
        "next items": measure(next_ones, kept, held_out)["recall@20"],
        "LightGCN": measure(light, kept, held_out)["recall@20"],
    }


def with_numbers_given(ranks: Ranks, folder: Path) -> None:
    kept, held_out = halves(ranks)
    save_file(filters(kept), folder / f"{ranks.rank}.safetensors")
    _write(folder, ranks, learned(kept, held_out))


def with_numbers_chosen(ranks: Ranks, folder: Path) -> None:
    made = walks().shared(ranks)
    fitted = fit(made, CHOSEN)
    known = (kept_lists(fitted.candidate, fitted.kept)).int()
    save_file({"lists": known}, folder / f"{ranks.rank}.safetensors")
    _write(folder, ranks, {"settings": asdict(fitted.settings), "metrics": fitted.metrics})


def kept_lists(embeddings: Any, kept: InteractionGraph) -> torch.Tensor:
    users = torch.arange(kept.n_users)
    scores = scorer(embeddings, kept)(users)
    scores[kept.users.astype(np.int64), kept.items.astype(np.int64)] = -torch.inf
    return scores.topk(20).indices


def _write(folder: Path, ranks: Ranks, found: object) -> None:
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def _read(folder: Path, rank: int = 0) -> Any:
    return json.loads((folder / f"{rank}.json").read_text())


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    together("tests.trainer.test_ranks:with_numbers_given", folder)
    return folder


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chosen")
    together("tests.trainer.test_ranks:with_numbers_chosen", folder)
    return folder


def test_two_ranks_make_the_filters_of_one_process(given: Path) -> None:
    expected = filters(halves()[0])
    for rank in range(2):
        found = load_file(given / f"{rank}.safetensors")
        for name, of in expected.items():
            torch.testing.assert_close(found[name], of, atol=1e-4, rtol=1e-4, msg=name)


def test_two_ranks_learn_as_well_as_one_process(given: Path) -> None:
    expected, found = learned(*halves()), _read(given)
    assert found == _read(given, 1)
    assert whole.edges(halves()[1]) == 2 * USERS
    for name, recall in expected.items():
        assert found[name] == pytest.approx(recall, rel=0.005), name
        assert recall > 0.3


@pytest.mark.long
def test_two_ranks_choose_and_rank_as_one_process_but_for_rounding(chosen: Path) -> None:
    made = walks()
    fitted = fit(made, CHOSEN)
    expected = kept_lists(fitted.candidate, fitted.kept).int()
    found = torch.empty_like(expected)
    for rank in range(2):
        own = torch.from_numpy(made.user_ids.hashes >> 31 == rank)
        found[own] = load_file(chosen / f"{rank}.safetensors")["lists"]
    same = (found[:, :, None] == expected[:, None, :]).any(2).float().mean()
    assert same > 0.98
    assert _read(chosen) == _read(chosen, 1)
    # Where two values rank alike but for rounding, either may be chosen; all that is used is set.
    used = {name: value is not None for name, value in asdict(fitted.settings).items()}
    assert {name: value is not None for name, value in _read(chosen)["settings"].items()} == used
    recall = fitted.metrics["recall@20"]
    assert _read(chosen)["metrics"]["recall@20"] == pytest.approx(recall, rel=0.002)


def what_ranks_say(ranks: Ranks, folder: Path) -> None:
    """Each way of talking, with much, little and nothing to say on a rank."""
    n = 3 * ranks.rank
    own = np.arange(n, dtype=np.int32).reshape(-1, 3)
    found = {
        "total": ranks.total(n),
        "most": ranks.most(-n),
        "largest": ranks.largest(0.5 * n),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "sum": ranks.sum(np.array([1.5, n])).tolist(),
        "joined": ranks.joined(own).tolist(),
        "swapped": [of.tolist() for of in ranks.swapped([own + 10 * to for to in range(3)])],
        "said": [ranks.said(f"rank {ranks.rank}".encode()).decode(), ranks.said(b"").decode()],
        "firsts": ranks.firsts(torch.full((2,), float(ranks.rank))).tolist(),
        "own": [*range(10)[ranks.own]],
        "whole": ranks.whole(torch.arange(10)[ranks.own][:, None]).flatten().tolist(),
        "at first": ranks.whole_at_first(torch.arange(10)[ranks.own]).tolist(),
        "at": [ranks.sum_at(torch.full((2,), float(n)), rank).tolist() for rank in range(3)],
        "spread": ranks.spread(torch.arange(n).float()),
    }
    _write(folder, ranks, found)


def test_what_ranks_say_to_one_another_arrives(tmp_path: Path) -> None:
    together("tests.trainer.test_ranks:what_ranks_say", tmp_path, size=3)
    rows: list[list[list[int]]] = [[[]], [[0, 1, 2]], [[0, 1, 2], [3, 4, 5]]]
    for rank in range(3):
        found = _read(tmp_path, rank)
        assert found.pop("at")[rank] == [9.0, 9.0]
        add = 10 * rank
        swapped = [[[n + add for n in row] for row in each if row] for each in rows]
        joined = [row for each in rows for row in each if row]
        assert found == {
            "total": 9,
            "most": 0,
            "largest": 3.0,
            "any": [True, False],
            "sum": [4.5, 9.0],
            "joined": joined,
            "swapped": swapped,
            "said": ["rank 0", ""],
            "firsts": [0.0, 0.0],
            "own": [*range(rank, 10, 3)],
            "whole": [*range(10)],
            "at first": [*range(10)] if rank == 0 else [*range(rank, 10, 3)],
            "spread": pytest.approx(np.std([0, 1, 2, 0, 1, 2, 3, 4, 5])),
        }


def drawn(ranks: Ranks, folder: Path) -> None:
    """What a training draws and whom it looks at, by ids, where each rank reads its own rows."""
    made = InteractionGraph(ranks=ranks)
    made.extend(own_rows(table(DRAWN_FROM), ranks))
    agree(made, 0)
    users, items = (of.values.to_pylist() for of in (made.user_ids, made.item_ids))
    newest = newest_edges(made, 0.1)
    looked_at: list[list[str]] = [[], [], []]  # evenly taken, measured, of whom spread is known

    def score(numbers: torch.Tensor) -> list[torch.Tensor]:
        looked_at[1].extend(users[n] for n in numbers.tolist())
        return [torch.zeros(len(numbers), made.n_items)]

    def noting(_: object, numbers: torch.Tensor, *__: object) -> torch.Tensor:
        looked_at[2].extend(users[n] for n in numbers.tolist())
        return numbers.float()

    some = made.every(7)
    looked_at[0] = [some.user_ids.values[int(n)].as_py() for n in some.user_ids.by_hash]
    ndcgs(score, made.subset(~newest), made.subset(newest), most=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blend, "score_all", noting)
        blend.spread(made, cast(Embeddings, None))
    torch.manual_seed(0)
    batches, given = Batches(Sequences.of(made, 1.0)), []
    for _ in range(3):
        batch = batches.draw(64, 32)
        weighed = batch.items[batch.weights > 0]  # the others count for nothing
        tensors = weighed, batch.wanted, batch.sampled
        given.append([[items[n] for n in of.tolist()] for of in tensors])
        given.append(batch.weights.tolist())
    _write(folder, ranks, {"batches": given, "looked at": looked_at, "edges": batches.edges})


DRAWN_FROM: list[tuple[str, str, float, int]] = [
    (f"u{n * 31 % 613}", f"i{n * n % 97}", 1.0, n // 5) for n in range(6_000)
]


def test_any_number_of_ranks_draws_the_same_edges_and_looks_at_the_same_users(
    tmp_path: Path,
) -> None:
    together("tests.trainer.test_ranks:drawn", tmp_path, size=3)
    found = [_read(tmp_path, rank) for rank in range(3)]
    drawn(ALONE, tmp_path)
    alone = _read(tmp_path)
    together("tests.trainer.test_ranks:drawn", tmp_path)
    of_two = [_read(tmp_path, rank) for rank in range(2)]
    for each in found + of_two:
        assert each["batches"] == alone["batches"]
        assert each["edges"] == alone["edges"] > 1_000
    looked_at = [[user for each in of_two for user in each["looked at"][n]] for n in range(3)]
    assert looked_at[0] == alone["looked at"][0]  # one process looks at others, but as many
    assert [*map(len, looked_at)] == [*map(len, alone["looked at"])]
    for n, users in enumerate(looked_at):
        assert [user for each in found for user in each["looked at"][n]] == users
        assert len(set(users)) == len(users) > 30
        assert all(each["looked at"][n] for each in found)


def grown(ranks: Ranks, folder: Path) -> None:
    """Two windows of rows, after each of which the ranks agree; then one rank begins anew."""
    windows = [ROWS[:6], ROWS[6:]]
    made, known = InteractionGraph(ranks=ranks), 0
    found: list[list[str]] = []
    for rows in windows:
        made.extend(own_rows(table(rows), ranks))
        known = agree(made, known)
        found.append(made.item_ids.values.to_pylist())
    edges = pairs(made)
    if ranks.rank == 1:
        made, known = InteractionGraph(ranks=ranks), 0
        made.extend(own_rows(table(ROWS), ranks))
    agree(made, known)
    again = made.item_ids.values.to_pylist()
    assert sorted(pairs(made)) == sorted(edges)
    assert (np.diff(made.keys) > 0).all()
    _write(folder, ranks, {"items": found, "edges": edges, "again": again})


ROWS: list[tuple[str, str, float, int]] = [
    (f"u{n % 5}", f"i{n * 7 % 9}", 1.0, n) for n in range(14)
]


def test_ranks_have_users_of_their_own_and_the_same_numbers_of_items(tmp_path: Path) -> None:
    together("tests.trainer.test_ranks:grown", tmp_path, size=3)
    found = [_read(tmp_path, rank) for rank in range(3)]
    edges = [tuple(edge) for each in found for edge in each["edges"]]
    assert sorted(edges) == sorted({(user, item) for user, item, *_ in ROWS})
    users = [{user for user, _ in each["edges"]} for each in found]
    assert sum(map(len, users)) == 5
    for each in found:
        assert each["items"] == found[0]["items"]
        before, after = each["items"]
        assert after[: len(before)] == before
        assert sorted(after) == sorted({item for _, item, *_ in ROWS})
        assert each["again"] == found[0]["again"]
        assert sorted(each["again"]) == sorted(after)


def tiny(ranks: Ranks, folder: Path) -> None:
    """Two users with times, and two without, on three ranks."""
    for at in (1, 0):
        rows: list[Row] = [(f"u{n % 2}", f"i{n}", 1.0, n * at) for n in range(12)]
        made = graph(rows).shared(ranks)
        assert made.n_users == (0 if ranks.rank == 1 else 1)
        fitted = fit(made, Hyperparameters(epochs=2, dim=4, negatives=8))
        scores = scorer(fitted.embeddings, made)(torch.arange(made.n_users))
        assert scores.isfinite().all()
        tensors = {name: of for name, of in fitted.embeddings.tensors.items() if name != "base"}
        made_whole = {name: ranks.whole(tensors[name]) for name in sorted(TABLES & tensors.keys())}
        save_file({**tensors, **made_whole}, folder / f"{ranks.rank}-{at}.safetensors")


@pytest.mark.long
def test_a_rank_without_users_has_the_items_of_all(tmp_path: Path) -> None:
    together("tests.trainer.test_ranks:tiny", tmp_path, size=3)
    for at in (1, 0):
        first, *others = (load_file(tmp_path / f"{rank}-{at}.safetensors") for rank in range(3))
        assert first["outgoing"].abs().sum() > 0
        for other in others:
            torch.testing.assert_close(other, first, atol=1e-6, rtol=1e-5)


def with_half_life(ranks: Ranks, folder: Path) -> None:
    made = walks()
    made.weighing = Weighing(half_life=1e-6)
    newer = made.user_ids.hashes >> 31 == 1  # those of one rank
    made.timestamps = made.timestamps * (1 + newer[made.users])
    _write(folder, ranks, {"strengths": made.shared(ranks).item_strengths.tolist()})


def test_ranks_take_strengths_of_one_moment(tmp_path: Path) -> None:
    together("tests.trainer.test_ranks:with_half_life", tmp_path)
    found = _read(tmp_path, 1)["strengths"]
    with_half_life(ALONE, tmp_path)
    assert found == pytest.approx(_read(tmp_path)["strengths"], rel=1e-5)


class Echo(Ranks):
    """Two ranks, of which the other one has what this one has."""

    size = 2

    def swapped(self, parts: Sequence[Array]) -> list[Array]:
        return [parts[0], parts[0]]


def test_no_more_blocks_are_made_than_are_summed_at_a_time() -> None:
    made: list[int] = []

    def block(items: Int64s) -> sp.csr_array:
        made.append(len(items))
        return sp.csr_array(np.ones((len(items), 4), np.float32))

    torch.set_num_threads(2)
    try:
        rows = summed(block, [[np.arange(3)] * 4] * 2, 4, Echo())
        assert (next(rows).toarray() == 2).all()
        assert len(made) == 2
        assert len([*rows]) == 3
    finally:
        torch.set_num_threads(1)


def test_a_rank_that_waits_for_another_is_said_to_be_busy() -> None:
    health, said = Health(), "waiting for the other processes"
    with Together(Echo(), logging.getLogger("test")).waiting(health):
        assert said in health.doing
    with Together(ALONE, logging.getLogger("test")).waiting(health):
        assert said not in health.doing
