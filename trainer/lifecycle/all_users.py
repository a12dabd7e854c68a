"""The users of all ranks in the snapshot that the first rank writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainer.graph.ids import from_arrays, in_arrays
from trainer.lifecycle.manifest import Snapshot
from trainer.lifecycle.trained_edges import Trained
from trainer.ranks import Ranks

TABLES = {"base", "users"}  # tensors with a row a user


def with_all_users(snapshot: Snapshot, ranks: Ranks) -> Snapshot:
    """What all ranks have of their own users, those of one rank after those of the one before.

    Returns:
        The whole snapshot on the first rank; on the others what was given.
    """
    if not ranks.several:
        return snapshot
    ids = from_arrays(*(ranks.brought(of) for of in in_arrays(snapshot.user_ids)))
    embeddings = replace(snapshot.embeddings, tensors=_tables(snapshot.embeddings.tensors, ranks))
    start = _tables(snapshot.start, ranks)
    trained = snapshot.trained and _edges(snapshot.trained, ranks)
    if not ranks.first:
        return snapshot
    return replace(snapshot, embeddings=embeddings, user_ids=ids, start=start, trained=trained)


def _tables(tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    made = dict(tensors)
    for name in sorted(TABLES & tensors.keys()):
        table = tensors[name]
        if table.shape[1]:
            made[name] = torch.from_numpy(ranks.brought(table.numpy()))
        else:
            made[name] = table.new_zeros(ranks.total(len(table)), 0)
    return made


def _edges(trained: Trained, ranks: Ranks) -> Trained:
    columns = trained.starts.diff(), trained.items, trained.held_out
    counts, items, held_out = (torch.from_numpy(ranks.brought(of.numpy())) for of in columns)
    starts = torch.from_numpy(np.append(0, counts.numpy().cumsum()))
    return Trained(starts, items, held_out)
