"""What the files of one part of a snapshot's users hold is checked as checks.py does it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.embedding.kinds import KINDS
from trainer.lifecycle import files
from trainer.lifecycle.checks import INTS, columns, shaped, within
from trainer.lifecycle.manifest import Manifest, SnapshotError
from trainer.lifecycle.parts import OF_MODEL, origin
from trainer.lifecycle.storage import File
from trainer.lifecycle.trained_edges import Trained


def read_rows(file: File, manifest: Manifest, part: str) -> dict[str, Tensor]:
    """The model's tensors with a row for each user of the part.

    Raises:
        SnapshotError: they are not what the model needs.
        OSError, SafetensorError: the file cannot be read.
    """
    found = files.read_tensors(file, origin(manifest.version, part))
    if "base" not in found:
        raise SnapshotError(f"{file} lacks the tensor base")
    users = len(found["base"]) if found["base"].dim() else 0
    shapes = KINDS[manifest.model].shapes(found, users, manifest.items, manifest.layers)
    return {
        name: shaped(file, found, name, shape) for name, shape in shapes.items() if name in OF_MODEL
    }


def read_start(file: File, manifest: Manifest, part: str, users: int) -> Tensor:
    """The rows of so many users in what the next training can go on from, float32 [users, dim].

    Raises:
        SnapshotError: they do not fit the manifest.
        OSError, SafetensorError: the file cannot be read.
    """
    found = files.read_tensors(file, origin(manifest.version, part))
    return shaped(file, found, "users", (users, columns(file, manifest)))


def read_trained(file: File, manifest: Manifest, part: str, users: int) -> Trained:
    """The edges of so many users that the snapshot was trained on.

    Raises:
        SnapshotError: they do not fit the manifest.
        OSError, SafetensorError: the file cannot be read.
    """
    found = files.read_tensors(file, origin(manifest.version, part))
    edges = edges_of_users(file, found, users)
    within(file, "items", edges.items, manifest.items)
    return edges


def edges_of_users(file: File, found: Mapping[str, Tensor], users: int) -> Trained:
    """The tensors of `Trained` among others that were read from a file.

    Raises:
        SnapshotError: they are not the edges of so many users.
    """
    starts = shaped(file, found, "starts", (users + 1,), (torch.int64,))
    n = int(starts[-1])
    if starts[0] != 0 or bool((starts.diff() < 0).any()):
        raise SnapshotError(f"{file}: starts does not ascend from 0")
    items = shaped(file, found, "items", (n,), INTS)
    return Trained(starts, items, shaped(file, found, "held_out", (n,), (torch.bool,)))


def table_of_users(file: File, found: Mapping[str, Tensor], name: str, users: int) -> Tensor:
    """A tensor with a row for each user, float32 [users, ...].

    Raises:
        SnapshotError: it has another type, or is not of so many users.
    """
    return shaped(file, found, name, (users, *found[name].shape[1:]))
