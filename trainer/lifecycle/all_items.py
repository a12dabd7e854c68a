"""The items of all ranks in the snapshot that the first rank writes."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trainer.lifecycle.manifest import Snapshot
from trainer.ranks import Ranks

# Tensors of which a rank has the rows of its own items: of the embeddings, and of the start.
TABLES, STARTS = {"incoming", "outgoing", "neighbors", "similarities"}, {"basis"}


def with_all_items(snapshot: Snapshot, ranks: Ranks) -> Snapshot:
    """The snapshot with the rows of all items on the first rank; on the others what was given."""
    if not ranks.several:
        return snapshot
    tables = _whole(snapshot.embeddings.tensors, TABLES, ranks)
    start = _whole(snapshot.start, STARTS, ranks)
    return replace(snapshot, embeddings=replace(snapshot.embeddings, tensors=tables), start=start)


def _whole(tensors: dict[str, Tensor], names: set[str], ranks: Ranks) -> dict[str, Tensor]:
    made = dict(tensors)
    for name in sorted(names & tensors.keys()):
        made[name] = ranks.whole_at_first(made.pop(name))
    return made
