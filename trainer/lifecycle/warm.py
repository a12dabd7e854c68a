"""Going on from the live snapshot: what it had chosen, its basis and its tables."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor

from trainer.embedding.blend import BlendEmbeddings
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.trained_edges import places
from trainer.model.hyperparameters import SETTINGS, Hyperparameters
from trainer.model.part import State

CHOOSE_AGAIN = 1.5  # times the edges of the last choice


def goes_on(live: Snapshot, edges: int, settings: Hyperparameters) -> bool:
    """Whether a training can go on from a snapshot: the same model, not outgrown.

    Args:
        edges: of the graph.
        settings: as `Hyperparameters.for_graph` gives them for the graph.
    """
    was = live.manifest.settings
    same = was.get("model") == settings.model
    same &= all(part.fits(was, settings) for part in settings.parts)
    same &= not settings.filled(chosen(live.manifest)).missing()
    return same and edges < CHOOSE_AGAIN * live.manifest.chosen_at


def chosen(manifest: Manifest) -> dict[str, float]:
    """The numbers that a snapshot was made with."""
    before = {name: of.before for name, of in SETTINGS.items() if of.before is not None}
    values = (before | manifest.settings).items()
    return {name: float(value) for name, value in values if isinstance(value, int | float)}


def tensors(start: State) -> State:
    """What a snapshot keeps of it; the basis in half precision, one iteration mends it."""
    return {name: of.half() if name == "basis" else of for name, of in start.items()}


def aligned_start(live: Snapshot, kept: State, graph: InteractionGraph) -> State:
    """A snapshot's `tensors` with rows in the graph's numbering; of several ranks each has the
    basis of its own items.

    A new node starts from zeros: in LightGCN's layers above the first that is the fold-in, and next
    items look for zeros and put a fold-in there.
    """
    users = _rows(graph.user_ids.values, live.user_ids)
    items = _rows(graph.item_ids.values, live.item_ids)
    rows = {"users": users, "basis": items[graph.ranks.own]}
    return {name: _aligned(of, rows.get(name, items)).float() for name, of in kept.items()}


def aligned(live: Snapshot, graph: InteractionGraph) -> Snapshot:
    """The snapshot with embeddings whose rows are in the graph's numbering, zeros for new nodes; of
    several ranks each has the rows of its own items, but all rows of what is no blend's."""
    users = _rows(graph.user_ids.values, live.user_ids)
    items = _rows(graph.item_ids.values, live.item_ids)
    if isinstance(live.embeddings, BlendEmbeddings):
        items = items[graph.ranks.own]
    made = dict(live.embeddings.tensors)
    for name, tensor in made.items():
        if name in ("base", "user_bias"):
            made[name] = _aligned(tensor, users)
        elif name.startswith(("incoming", "outgoing", "neighbors", "similarities")):
            made[name] = _aligned(tensor, items)
    if "neighbors" in made:
        numbers = _rows(live.item_ids, graph.item_ids.values)[made["neighbors"].long()]
        made["similarities"] = made["similarities"] * (numbers >= 0)  # some are gone since
        made["neighbors"] = numbers.clamp(min=0).int()
    return replace(live, embeddings=replace(live.embeddings, tensors=made))


def _rows(ids: pa.Array, among: pa.Array) -> Tensor:
    return torch.from_numpy(places(ids, among))


def _aligned(table: Tensor, rows: Tensor) -> Tensor:
    known = rows >= 0
    made = table.new_zeros((len(rows), *table.shape[1:]))
    made[known] = table[rows[known]]
    return made
