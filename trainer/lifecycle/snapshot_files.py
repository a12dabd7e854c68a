"""The files that a snapshot is written to: those of the items, and some for each part of the users.

<MODEL_STORE>/<version>/
  tables.safetensors, items.parquet     what the model has learned of the items, and their ids
  start.safetensors                     what the next training goes on from
  tables-00000-of-00004.safetensors, users-00000-of-00004.parquet, start-..., trained-...
                                        the same of the users of a part, and the edges of these
                                        users that the snapshot was trained on
  manifest.json                         written last: with it the snapshot is whole
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainer.graph.arrays import Int64s
from trainer.lifecycle import files
from trainer.lifecycle.manifest import Snapshot
from trainer.lifecycle.parts import OF_USERS, origin, part_name, part_numbers
from trainer.lifecycle.storage import Target, Write
from trainer.lifecycle.trained_edges import Trained
from trainer.ranks import Ranks

Rows = Int64s | None  # of the users of a part, ascending; None: all


def names(snapshot: Snapshot) -> set[str]:
    """Of all files that all ranks write, which are alike but for their users."""
    of = snapshot.manifest.parts
    one = of_items(snapshot).keys()
    stems = _of_users(snapshot).keys() | ({"trained"} if snapshot.trained else set())
    parts = [part_name(number, of) for number in range(of)]
    tables = {f"{stem}{part}.safetensors" for stem in stems for part in parts}
    return one | tables | {f"users{part}.parquet" for part in parts}


def of_items(snapshot: Snapshot) -> dict[str, Write]:
    """Name -> how the file is written."""
    version = snapshot.manifest.version
    made: dict[str, Write] = {}
    for stem, tensors in _tensors(snapshot).items():
        kept = {key: of for key, of in tensors.items() if key not in OF_USERS}
        write = partial(files.write_tensors, tensors=kept, version=version)
        made[f"{stem}.safetensors"] = write
    write = partial(files.write_ids, column="item_id", ids=snapshot.item_ids, version=version)
    return made | {"items.parquet": write}


def of_users(snapshot: Snapshot, ranks: Ranks) -> dict[str, Write]:
    """The same for the parts of a rank, whose users are all that the snapshot has here."""
    made: dict[str, Write] = {}
    of = snapshot.manifest.parts
    own = range(of * ranks.rank // ranks.size, of * (ranks.rank + 1) // ranks.size)
    for number, rows in _rows(snapshot.user_ids, of, own).items():
        part = part_name(number, of)
        told = origin(snapshot.manifest.version, part)
        made[f"users{part}.parquet"] = partial(_write_ids, snapshot.user_ids, rows, told)
        for stem, tensors in _of_users(snapshot).items():
            made[f"{stem}{part}.safetensors"] = partial(_write_tables, tensors, rows, told)
        if snapshot.trained:
            write = partial(_write_trained, snapshot.trained, rows, told)
            made[f"trained{part}.safetensors"] = write
    return made


def _tensors(snapshot: Snapshot) -> dict[str, Mapping[str, Tensor]]:
    return {"tables": snapshot.embeddings.tensors, "start": snapshot.start}


def _of_users(snapshot: Snapshot) -> dict[str, dict[str, Tensor]]:
    """File -> tensors with a row a user, where it has any."""
    found = {
        stem: {key: of for key, of in tensors.items() if key in OF_USERS}
        for stem, tensors in _tensors(snapshot).items()
    }
    return {stem: tensors for stem, tensors in found.items() if tensors}


def _rows(ids: pa.Array, of: int, own: range) -> dict[int, Rows]:
    """Part -> its users, of one's own parts. A user who was forgotten lies in any of these."""
    if len(own) == 1:
        return {own[0]: None}
    found = part_numbers(ids, of).clip(own.start, own.stop - 1)
    order = np.argsort(found, kind="stable")
    starts = np.searchsorted(found[order], own)
    return dict(zip(own, np.split(order, starts[1:]), strict=True))


# A part is cut out when it is written, and dropped then.


def _write_ids(ids: pa.Array, rows: Rows, version: str, target: Target) -> None:
    own = ids if rows is None else ids.take(pa.array(rows))
    files.write_ids(target, "user_id", own, version)


def _write_tables(tensors: Mapping[str, Tensor], rows: Rows, version: str, target: Target) -> None:
    own = {key: of if rows is None else of[torch.from_numpy(rows)] for key, of in tensors.items()}
    files.write_tensors(target, own, version)


def _write_trained(trained: Trained, rows: Rows, version: str, target: Target) -> None:
    own = trained if rows is None else trained.of_users(torch.from_numpy(rows))
    files.write_tensors(target, own.tensors(), version)
