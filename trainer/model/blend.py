"""The parts of a model, fitted and in one `Embeddings`."""

from __future__ import annotations

import torch

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import TINY, own
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.scores import score_all
from trainer.graph.interactions import InteractionGraph
from trainer.graph.user_order import at_most, in_order, one_in
from trainer.memory import give_back
from trainer.model.hyperparameters import MODELS, Hyperparameters
from trainer.model.part import Fitted, State
from trainer.model.progress import Progress, quiet
from trainer.model.rows import Rows, together

PARTS = MODELS["blend"]
SPREAD_USERS = 256  # on whom a part's spread is measured
AllFitted = dict[str, Fitted[Hyperparameters]]  # by the names of the parts


def fit(
    graph: InteractionGraph,
    settings: Hyperparameters,
    progress: Progress = quiet,
    state: State | None = None,
    share: int = 1,
    held_out: InteractionGraph | None = None,
) -> AllFitted:
    """Fit every part that has a weight.

    Args:
        settings: with nothing missing.
        state, share, held_out: as `Part.fit`.

    Raises:
        Diverged, TrainingStopped, DeviceMissing: as `train`.
    """
    made: AllFitted = {}
    for part in settings.parts:
        made[part.name] = part.fit(graph, settings, progress, state, share, held_out)
        give_back()  # a part frees many times what it leaves
    return made


def state(fitted: AllFitted, settings: Hyperparameters) -> State:
    """What the next training can go on from, of all parts."""
    return {name: of for part in fitted.values() for name, of in part.state(settings).items()}


def spread(graph: InteractionGraph, part: Embeddings) -> float:
    """Standard deviation of a part's scores over users and items."""
    ranks = graph.ranks
    users = in_order(graph.user_ids, graph.user_strengths != 0, ranks)
    step = max(1, ranks.total(len(users)) // SPREAD_USERS)
    chosen = torch.from_numpy(at_most(SPREAD_USERS, one_in(step, users, ranks), ranks))
    made = score_all(part, chosen, own(graph, chosen), graph.n_items, ranks)
    return max(ranks.spread(made), TINY)


def blend(graph: InteractionGraph, fitted: AllFitted, settings: Hyperparameters) -> Embeddings:
    """The parts over `graph` in one, each scaled to unit spread, then by its weight; on the CPU.

    Of several ranks each has the rows of its own items.

    A model whose one part is no blend's is that part.
    """
    # In the order of the settings: the low pass's columns come before those of the learned part.
    made = {part.name: fitted[part.name].embeddings(graph, settings) for part in settings.parts}
    for one in made.values():
        if not isinstance(one, BlendEmbeddings):
            return one
    weights = {part.name: settings.weight(part) or 0.0 for part in settings.parts}
    scales = {name: weights[name] / spread(graph, made[name]) for name in made}
    tensors = {
        "base": torch.cat([part.tensors["base"] for part in made.values()], 1),
        "incoming": torch.cat([part.tensors["incoming"] for part in made.values()], 1),
        "outgoing": torch.cat([part.outgoing for part in made.values()], 1),
        # What item_fold_in.py needs besides.
        "strengths": torch.from_numpy(graph.item_strengths),
        "scales": torch.tensor([scales.get(part.name, 0.0) for part in PARTS]),
    }
    columns = [part.outgoing.shape[1] for part in made.values()]
    for name, of_part in zip(made, torch.split(tensors["outgoing"], columns, 1), strict=True):
        of_part *= scales[name]
    near = [
        (Rows(part.tensors["neighbors"], part.tensors["similarities"]), scales[name])
        for name, part in made.items()
        if "neighbors" in part.tensors
    ]
    if len(near) > 1:
        near = [(together(near, graph.n_items, settings.neighbors_kept, graph.ranks), 1.0)]
    for rows, scale in near:
        tensors["neighbors"], tensors["similarities"] = rows.columns, scale * rows.values
    squares = [part.tensors["squares"] for part in made.values() if "squares" in part.tensors]
    tensors["squares"] = torch.cat([torch.zeros(0), *squares])
    layers = max(part.layers for part in made.values())
    cosine = all(part.cosine for part in made.values())
    recency, dampened = settings.recency or 0.0, bool(settings.dampening)
    return BlendEmbeddings(settings.model, layers, cosine, tensors, recency, dampened)
