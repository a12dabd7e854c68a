"""What a snapshot's files hold is checked when they are read: names, shapes, types, ranges.

A file that is whole may still be wrong: written by another program, half restored, or changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from trainer.embedding.embeddings import Shape
from trainer.embedding.kinds import KINDS
from trainer.lifecycle import files
from trainer.lifecycle.manifest import Manifest, SnapshotError
from trainer.lifecycle.storage import File
from trainer.model.hyperparameters import MODELS, AnyPart

MOST_LAYERS = 64
MOST_PARTS = 99_999  # what the names of files have room for
START_TABLES = ({"items"}, {"incoming", "outgoing"})  # of LightGCN, of next items
COUNTS = ("users", "items", "edges", "chosen_at", "log", "stamp")
FLOATS, INTS = (torch.float32,), (torch.int32,)


def check_manifest(place: str, manifest: Manifest) -> None:
    """Raises SnapshotError where the manifest's own values cannot be."""
    counts = {name: getattr(manifest, name) for name in COUNTS}
    wrong = [f"{name}={value}" for name, value in counts.items() if value < 0]
    wrong += [f"offset {at} of partition {p}" for p, at in manifest.offsets.items() if at < 0]
    if manifest.model not in KINDS:
        wrong.append(f"model={manifest.model!r}")
    elif not KINDS[manifest.model].fewest_layers <= manifest.layers <= MOST_LAYERS:
        wrong.append(f"layers={manifest.layers}")
    if not min(1, manifest.format - 1) <= manifest.parts <= MOST_PARTS:
        wrong.append(f"parts={manifest.parts}")
    wrong += [f"no number for {name}" for name in _needed(manifest) if not _number(manifest, name)]
    if wrong:
        raise SnapshotError(f"{place} cannot be right: {', '.join(wrong)}")


def read_ids(
    file: File, column: str, version: str, expected: int | None = None, blanks: bool = False
) -> pa.Array:
    """The ids of a snapshot's users or items, string [rows].

    Args:
        expected: rows that there must be.
        blanks: the empty string may stand there, more than once, for users who were forgotten.

    Raises:
        SnapshotError: they are not what a snapshot holds.
        OSError, ArrowException: the file cannot be read.
    """
    table = files.read_ids(file, version)
    if column not in table.column_names:
        raise SnapshotError(f"{file} has no column {column}")
    if table[column].type not in (pa.string(), pa.large_string()):
        raise SnapshotError(f"{file}: {column} is of type {table[column].type}, not string")
    ids = table[column].cast(pa.string()).combine_chunks()
    named = ids.filter(pc.not_equal(ids, "")) if blanks else ids
    if expected is not None and len(ids) != expected:
        raise SnapshotError(f"{file} has {len(ids)} rows where the manifest says {expected}")
    if ids.null_count:
        raise SnapshotError(f"{file} has {ids.null_count} rows without an id")
    if pc.any(pc.equal(named, "")).as_py():
        raise SnapshotError(f"{file} has an empty id")
    if pc.count_distinct(named).as_py() != len(named):
        raise SnapshotError(f"{file} has an id twice")
    return ids


def read_tables(
    file: File, manifest: Manifest, of_users: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors that the manifest's model has; others in the file are left out.

    Args:
        of_users: those with a row a user, which `users_checked` has read.

    Raises:
        SnapshotError: they are not what the model needs.
        OSError, SafetensorError: the file cannot be read.
    """
    found = {**files.read_tensors(file, manifest.version), **of_users}
    sizes = len(of_users["base"]), manifest.items, manifest.layers
    shapes = KINDS[manifest.model].shapes(found, *sizes)
    for name in _tables(manifest) - shapes.keys():
        raise SnapshotError(f"{file} lacks the tensor {name}")
    kept = {
        name: shaped(file, found, name, shape, INTS if name == "neighbors" else FLOATS)
        for name, shape in shapes.items()
    }
    if "neighbors" in kept:
        within(file, "neighbors", kept["neighbors"], manifest.items)
    for name in ("strengths", "squares", "scales"):
        if name in kept and bool((kept[name] < 0).any()):
            raise SnapshotError(f"{file}: {name} has a negative value")
    if len(kept.get("squares", ())) and not kept["scales"][1] > 0:
        raise SnapshotError(f"{file}: scales has no factor for the low pass")
    return kept


def read_start(file: File, manifest: Manifest) -> dict[str, Tensor]:
    """What the next training can go on from, without the rows of users.

    Raises:
        SnapshotError: it does not fit the manifest.
        OSError, SafetensorError: the file cannot be read.
    """
    found = files.read_tensors(file, manifest.version)
    kept: dict[str, Tensor] = {}
    for names in START_TABLES:
        if names & found.keys():
            shape = manifest.items, columns(file, manifest)
            kept = {name: shaped(file, found, name, shape) for name in names}
    if "basis" in found:
        shape = (manifest.items, _columns(found, "basis"))
        kept["basis"] = shaped(file, found, "basis", shape, (torch.float16, torch.float32))
    return kept


def columns(file: File, manifest: Manifest) -> int:
    """Of the tables that a training goes on from.

    Raises:
        SnapshotError: the manifest does not say how many.
    """
    dim = manifest.settings.get("dim")
    if not isinstance(dim, int):
        raise SnapshotError(f"{file} has tables, and its manifest no dim")
    return dim


def _weighed(manifest: Manifest) -> list[AnyPart]:
    """The parts that the manifest's model has."""
    parts = MODELS.get(manifest.model, ())
    return [part for part in parts if len(parts) == 1 or manifest.settings.get(part.weight)]


def _tables(manifest: Manifest) -> set[str]:
    """Tensors that a part needs, which a file's own tensors do not tell of."""
    return {name for part in _weighed(manifest) for name in part.tables}


def _needed(manifest: Manifest) -> list[str]:
    """Settings by which users are scored and new items are folded in."""
    names = ["recency"] if manifest.settings.get("recency") else []
    return names + [name for part in _weighed(manifest) for name in part.needed]


def _number(manifest: Manifest, name: str) -> bool:
    value = manifest.settings.get(name)
    return isinstance(value, int | float) and math.isfinite(value)


def _columns(found: Mapping[str, Tensor], name: str) -> int:
    """Columns of a matrix; 0 where there is none, which no shape of the manifest has."""
    return found[name].shape[1] if name in found and found[name].dim() == 2 else 0


def shaped(
    file: File,
    found: Mapping[str, Tensor],
    name: str,
    shape: Shape,
    types: tuple[torch.dtype, ...] = FLOATS,
) -> Tensor:
    """The tensor of this name, shape and one of these types, all of its values finite."""
    if name not in found:
        raise SnapshotError(f"{file} lacks the tensor {name}")
    tensor = found[name]
    if tuple(tensor.shape) != shape:
        raise SnapshotError(f"{file}: {name} has shape {list(tensor.shape)}, not {list(shape)}")
    if tensor.dtype not in types:
        raise SnapshotError(f"{file}: {name} has type {tensor.dtype}, not {types[0]}")
    if tensor.is_floating_point() and tensor.numel():
        least, largest = tensor.aminmax()  # takes no memory, and a NaN comes out
        if not (math.isfinite(least) and math.isfinite(largest)):
            raise SnapshotError(f"{file}: {name} has a value that is not finite")
    return tensor


def within(file: File, name: str, numbers: Tensor, n: int) -> None:
    """Raises SnapshotError unless all numbers are from 0 up to and without n."""
    if numbers.numel():
        least, largest = map(int, numbers.aminmax())
        if least < 0 or largest >= n:
            raise SnapshotError(f"{file}: {name} has numbers {least} to {largest} of {n} items")
