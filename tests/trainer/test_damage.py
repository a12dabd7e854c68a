"""Snapshots that are whole but wrong: the trainer and serving use the one before, with one line."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from consumer.edge.store import Watermark
from tests.graphs import blocks, timed
from trainer.fit.fit import fit
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.candidate import candidate
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.warm import aligned
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import quiet

FIRST_EDITION = Path(__file__).parent.parent / "data" / "first_edition" / "models"
MODELS = ("blend", "gcn")
NEXT = "blend with next items"
PART = "-00000-of-00001"
USERS = f"users{PART}.parquet"
OLD, LIVE = "20260101T000000.0Z", "20260102T000000.0Z"
SMALL = Hyperparameters(dim=8, epochs=5, vectors=4, negatives=32, layers=2)
SETTINGS = replace(SMALL, learned_order=0.0).usual()
OF_MODEL = {
    "blend": SETTINGS,
    "gcn": replace(SETTINGS, model="gcn"),
    NEXT: replace(SMALL, learned_order=1.0).usual(),
}
READ = Watermark(logs={0: {0: 840}})
log = logging.getLogger("trainer")


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    return blocks(users=20)


@pytest.fixture(scope="module")
def stores(graph: InteractionGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of model a store of two snapshots, the second one live."""
    stores = tmp_path_factory.mktemp("stores")
    for model, settings in OF_MODEL.items():
        snapshots = Snapshots(str(stores / model))
        made = timed(blocks(users=20)) if model == NEXT else graph
        snapshot = candidate(made, settings, snapshots, None, quiet, READ)
        for version in (OLD, LIVE):
            snapshot.manifest.version, snapshot.manifest.rejected = version, ""
            snapshots.write(snapshot)
            snapshots.promote(version)
    return stores


@pytest.fixture
def folder(request: pytest.FixtureRequest, stores: Path, tmp_path: Path) -> Path:
    """A store to be damaged, of a blend unless the test asks for another."""
    model = getattr(request, "param", "blend")
    shutil.copytree(stores / model, tmp_path / "models")
    return tmp_path / "models"


def manifest(**values: object) -> Callable[[Path], None]:
    def change(snapshot: Path) -> None:
        path = snapshot / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def tables(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """A change of the model's tables: of those of the items, or of those of the users."""

    def of(snapshot: Path) -> None:
        for name in ("tables.safetensors", f"tables{PART}.safetensors"):
            tensors = load_file(snapshot / name)
            with suppress(KeyError):  # the tensor is in the other one
                change(tensors)
                kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
                save_file(kept, snapshot / name)

    return of


def replaced(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    return tables(lambda tensors: tensors.update({name: make(tensors[name])}))


def put(name: str, value: float) -> Callable[[Path], None]:
    def make(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return replaced(name, make)


def column(file: str, name: str, make: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def change(snapshot: Path) -> None:
        ids = pq.read_table(snapshot / file)[name].to_pylist()
        pq.write_table(pa.table({name: make(ids)}), snapshot / file)

    return change


def users(make: Callable[[list[str]], object]) -> Callable[[Path], None]:
    return column(USERS, "user_id", make)


def items(make: Callable[[list[str]], object]) -> Callable[[Path], None]:
    return column("items.parquet", "item_id", make)


def file(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(snapshot: Path) -> None:
        (snapshot / name).unlink()
        if content is not None:
            (snapshot / name).write_bytes(content)

    return change


def turned(name: str, at: int) -> Callable[[Path], None]:
    def change(snapshot: Path) -> None:
        content = bytearray((snapshot / name).read_bytes())
        content[at] ^= 1
        (snapshot / name).write_bytes(content)

    return change


def of_another(name: str) -> Callable[[Path], None]:
    """The same file of the snapshot before, which holds the same values."""

    def change(snapshot: Path) -> None:
        shutil.copy(snapshot.parent / OLD / name, snapshot / name)

    return change


def not_utf8(ids: list[str]) -> pa.Array:
    """As from another writer: "?" is a byte that is none."""
    content = [b"\xff" if each == "?" else each.encode() for each in ids]
    return pa.array(content).view(pa.string())


def pipe(snapshot: Path) -> None:
    (snapshot / USERS).unlink()
    os.mkfifo(snapshot / USERS)


EITHER = {
    "no base": tables(lambda t: t.pop("base")),
    "no outgoing": tables(lambda t: t.pop("outgoing")),
    "no incoming": tables(lambda t: t.pop("incoming")),
    "a NaN": put("incoming", float("nan")),
    "an infinite value": put("outgoing", float("inf")),
    "a NaN of a user": put("base", float("nan")),
    "fewer rows of users": replaced("base", lambda t: t[:-1]),
    "more rows of users": replaced("base", lambda t: torch.cat([t, t])),
    "fewer rows of items": replaced("outgoing", lambda t: t[:-1]),
    "fewer columns": replaced("incoming", lambda t: t[:, :-1]),
    "one dimension": replaced("incoming", lambda t: t.reshape(-1)),
    "no rows": replaced("base", lambda t: t[:0]),
    "double precision": replaced("outgoing", lambda t: t.double()),
    "whole numbers": replaced("outgoing", lambda t: t.int()),
    "tables that are cut off": file("tables.safetensors", b"\xff\xff\xff\x00\x00\x00\x00\x00{"),
    "tables that are empty": file("tables.safetensors", b""),
    "no tables": file("tables.safetensors", None),
    "fewer users": users(lambda ids: ids[:-1]),
    "more users": users(lambda ids: [*ids, "more"]),
    "a user twice": users(lambda ids: [*ids[:-1], ids[0]]),
    "a user without id": users(lambda ids: [*ids[:-1], None]),
    "numbers for users": users(lambda ids: list(range(len(ids)))),
    "fewer items": items(lambda ids: ids[:-1]),
    "an item twice": items(lambda ids: [*ids[:-1], ids[0]]),
    "an item without id": items(lambda ids: [*ids[:-1], None]),
    "an empty item id": items(lambda ids: [*ids[:-1], ""]),
    "another column": lambda s: pq.write_table(pa.table({"x": [1]}), s / "items.parquet"),
    "ids that are no Parquet": file(USERS, b"PAR1\x00\x00PAR1"),
    "no ids": file("items.parquet", None),
    "a pipe for a file": pipe,
    "a bit of a table that was turned": turned("tables.safetensors", -1),
    "a bit of an id that was turned": turned(USERS, 20),
    "tables of another snapshot": of_another("tables.safetensors"),
    "users of another snapshot": of_another(USERS),
    "tables of users of another snapshot": of_another(f"tables{PART}.safetensors"),
    "no tables of users": file(f"tables{PART}.safetensors", None),
    "a bit of a table of users that was turned": turned(f"tables{PART}.safetensors", -1),
    "more parts than there are": manifest(parts=2),
    "no part": manifest(parts=0),
    "parts without number": manifest(parts=10**15),
    "items of another snapshot": of_another("items.parquet"),
    "an id that is no UTF-8": users(lambda ids: not_utf8([*ids[:-1], "?"])),
    "another model": manifest(model="gru4rec"),
    "another version": manifest(version=OLD),
    "a version from elsewhere": manifest(version="../" + OLD),
    "negative users": manifest(users=-1),
    "negative edges": manifest(edges=-5),
    "more users than rows": manifest(users=10**15),
    "no number of items": manifest(items="many"),
    "negative offsets": manifest(offsets={"0": -1}),
    "offsets that are no numbers": manifest(offsets={"all": 3}),
    "too many layers": manifest(layers=10**9),
    "layers of text": manifest(layers="3"),
    "a manifest without fields": file("manifest.json", b"{}"),
    "a manifest that is no JSON": file("manifest.json", b"\xff{"),
    "an empty manifest": file("manifest.json", b""),
    "a newer format": manifest(format=1_000, users="as you like"),
}
BLEND = {
    "neighbours out of range": put("neighbors", 48),
    "negative neighbours": put("neighbors", -1),
    "neighbours of other types": replaced("neighbors", lambda t: t.long()),
    "no neighbours": tables(lambda t: t.pop("neighbors")),
    "no similarities": tables(lambda t: t.pop("similarities")),
    "neither": tables(lambda t: (t.pop("neighbors"), t.pop("similarities"))),
    "fewer similarities": replaced("similarities", lambda t: t[:, :-1]),
    "a NaN of a neighbour": put("similarities", float("nan")),
    "no strengths": tables(lambda t: t.pop("strengths")),
    "negative strengths": put("strengths", -1.0),
    "fewer scales": replaced("scales", lambda t: t[:2]),
    "no scale": replaced("scales", lambda t: t * 0),
    "no squares": tables(lambda t: t.pop("squares")),
    "fewer squares": replaced("squares", lambda t: t[:-1]),
    "settings that are missing": manifest(settings={"neighbors_weight": 1.0}),
    "a recency of text": manifest(settings={"recency": "x"}),
    "settings of text": manifest(settings={"low_pass_weight": 1.0, "low_pass_power": "much"}),
}
GCN = {
    "no layer": manifest(layers=0),
    "one layer more": manifest(layers=3),
    "no weight": tables(lambda t: t.pop("weight.0")),
    "a weight that is not square": replaced("weight.1", lambda t: t[:-1]),
    "a NaN of a bias": put("bias.0", float("nan")),
    "no biases of users": tables(lambda t: t.pop("user_bias")),
    "two biases of the unknown": replaced("unknown_bias", lambda t: torch.cat([t, t])),
}


@pytest.mark.parametrize(
    ("folder", "fault"),
    [*product(MODELS, EITHER), *product(["blend"], BLEND), *product(["gcn"], GCN)],
    indirect=["folder"],
)
def test_a_wrong_snapshot_is_passed_over_for_the_one_before_with_one_line(
    fault: str, folder: Path, graph: InteractionGraph, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = Snapshots(str(folder))
    (EITHER | BLEND | GCN)[fault](folder / LIVE)
    live = LiveModel(snapshots, log)
    used = live.read()
    for _ in range(3):  # serving looks twice a second
        assert used
        assert used.manifest.version == OLD
        assert live.version() == OLD
        used = live.read()
    assert used
    assert aligned(used, graph).embeddings.n_items == graph.n_items
    assert len(caplog.messages) == 1
    assert f"Snapshot {LIVE} cannot be used: " in caplog.text
    assert f"; {OLD} is used" in caplog.text
    with pytest.raises(SnapshotError, match=str(folder / LIVE)):
        snapshots.read(LIVE)


def test_a_snapshot_that_was_mended_is_used_again(folder: Path) -> None:
    live = LiveModel(Snapshots(str(folder)), log)
    whole = (folder / LIVE / "tables.safetensors").read_bytes()
    file("tables.safetensors", whole[:-4])(folder / LIVE)
    used = live.read()
    assert used
    assert used.manifest.version == OLD
    file("tables.safetensors", whole)(folder / LIVE)
    assert live.version() == LIVE


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\xff\xfe\x00", b"../" + OLD.encode(), b"/etc", OLD.encode() + b"\n" + b"x" * 99],
)
def test_a_live_pointer_that_names_no_version_is_said_and_the_newest_live_one_is_used(
    content: bytes, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "live").write_bytes(content)
    live = LiveModel(Snapshots(str(folder)), log)
    assert live.version() == LIVE
    assert live.version() == LIVE
    assert len(caplog.messages) == 1
    assert "does not say which model is live" in caplog.text


@pytest.mark.parametrize("fault", ["folder", "pipe", "missing version", "missing folder"])
def test_a_live_pointer_that_leads_nowhere_is_passed_over(
    fault: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if fault == "missing version":
        (folder / "live").write_text("20260103T000000.0Z\n")
    elif fault == "missing folder":
        shutil.rmtree(folder / LIVE)
    else:
        (folder / "live").unlink()
        os.mkfifo(folder / "live") if fault == "pipe" else (folder / "live").mkdir()
    live = LiveModel(Snapshots(str(folder)), log)
    used = live.read()
    assert used
    assert used.manifest.version == (OLD if fault == "missing folder" else LIVE)
    assert len(caplog.messages) == 1


def test_a_rejected_snapshot_never_takes_the_place_of_a_damaged_one(folder: Path) -> None:
    manifest(rejected="it is worse")(folder / OLD)
    file("tables.safetensors", b"")(folder / LIVE)
    assert LiveModel(Snapshots(str(folder)), log).read() is None


def test_a_newer_format_is_refused_in_words_and_unknown_fields_are_ignored(folder: Path) -> None:
    snapshots = Snapshots(str(folder))
    manifest(format=3, layers=["of", "a", "kind"])(folder / LIVE)
    with pytest.raises(SnapshotError, match=r"has format 3, and .* reads up to 2: install"):
        snapshots.read(LIVE)
    manifest(aim="to please", newest=1)(folder / OLD)
    assert snapshots.read(OLD).manifest.version == OLD


STARTS: list[tuple[str, Callable[[dict[str, Tensor]], object]]] = [
    ("blend", lambda tensors: tensors.update(users=tensors["users"][:-1])),
    ("blend", lambda tensors: tensors.update(items=tensors["items"][:, :-1].contiguous())),
    ("blend", lambda tensors: tensors.update(basis=tensors["basis"][:-1])),
    ("blend", lambda tensors: tensors["users"].fill_(float("nan"))),
    ("blend", lambda tensors: tensors.pop("items")),
    ("blend", lambda tensors: tensors.update(basis=tensors["basis"].int())),
    (NEXT, lambda tensors: tensors.update(incoming=tensors["incoming"][:-1])),
    (NEXT, lambda tensors: tensors["outgoing"].fill_(float("nan"))),
    (NEXT, lambda tensors: tensors.pop("outgoing")),
]


def changed_start(
    snapshot: Path, change: Callable[[dict[str, Tensor]], object], next_items: bool
) -> Path:
    """The file that has the tensor that was changed: of next items users have none."""
    names = ["start"] if next_items else ["start", f"start{PART}"]
    for path in (snapshot / f"{name}.safetensors" for name in names):
        tensors = load_file(path)
        with suppress(KeyError):
            change(tensors)
            save_file(tensors, path)
            return path
    raise AssertionError("no file has the tensor")


@pytest.mark.parametrize(("folder", "change"), STARTS, indirect=["folder"])
def test_with_a_wrong_start_the_training_begins_from_scratch(
    change: Callable[[dict[str, Tensor]], object],
    folder: Path,
    graph: InteractionGraph,
    caplog: pytest.LogCaptureFixture,
) -> None:
    snapshots = Snapshots(str(folder))
    live = snapshots.read(LIVE)
    next_items = not (folder / LIVE / f"start{PART}.safetensors").exists()
    changed = changed_start(folder / LIVE, change, next_items)
    settings = OF_MODEL[NEXT if next_items else "blend"]
    made = candidate(graph, settings, snapshots, live, quiet, READ)
    assert made.manifest.edges == len(graph)
    assert f"{changed}" in caplog.text
    assert "training from scratch" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update(starts=tensors["starts"][1:].contiguous()),
        lambda tensors: tensors["starts"].neg_(),
        lambda tensors: tensors["items"].fill_(48),
        lambda tensors: tensors.pop("held_out"),
        lambda tensors: tensors.update(starts=tensors["starts"] * 2),
    ],
)
def test_with_wrong_edges_of_the_live_snapshot_nothing_is_compared_with_it(
    change: Callable[[dict[str, Tensor]], object],
    folder: Path,
    graph: InteractionGraph,
    caplog: pytest.LogCaptureFixture,
) -> None:
    snapshots = Snapshots(str(folder))
    live = snapshots.read(LIVE)
    path = folder / LIVE / f"trained{PART}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    candidate(graph, SETTINGS, snapshots, live, quiet, READ)
    assert f"the gate will not compare the new model with the live model {LIVE}" in caplog.text


@pytest.mark.parametrize("name", ["start", "trained"])
def test_while_the_store_of_the_live_model_is_away_nothing_is_trained_without_it(
    name: str, folder: Path, graph: InteractionGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(str(folder))
    live = snapshots.read(LIVE)

    def away(*_: object) -> None:
        raise StoreAway("the server does not answer")

    monkeypatch.setattr(Snapshots, name, away)
    with pytest.raises(StoreAway):
        candidate(graph, SETTINGS, snapshots, live, quiet, READ)


def test_the_first_editions_snapshot_is_read_and_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shutil.copytree(FIRST_EDITION, tmp_path / "models")
    snapshots = Snapshots(str(tmp_path / "models"))
    live = LiveModel(snapshots, log).read()
    assert live
    assert (live.manifest.format, live.embeddings.n_items) == (1, 30)
    made = blocks(n_blocks=2, users=31, items=15, edges=8)
    settings = Hyperparameters(dim=8, epochs=5, vectors=8, neighbors_kept=16).without_time()
    found = candidate(made, settings, snapshots, live, quiet, READ)
    assert "going on from 20261125T165550.046159Z" in caplog.text
    assert found.trained
    snapshots.write(found)
    snapshots.promote(found.manifest.version)
    assert snapshots.versions() == [live.manifest.version, found.manifest.version]
    assert fit(made, settings.usual()).embeddings.n_items == found.embeddings.n_items
