"""The learned part where order counts: item vectors that predict the next item of a user.

    state  = sum over the user's items i so far of R_ui (1 + age_ui)^-recency incoming_i
    P(j next) = softmax over j of <unit(state), unit(outgoing_j)> / temperature

with the age as it was at that moment. A user has no vector of its own, as in FPMC (Rendle et al.,
WWW 2010) and Fossil (He & McAuley, ICDM 2016): a user is what the user's edges bring, so the list
of a new user is as good as after a retraining. The softmax is taken over a sample that all states
share, drawn by popularity and corrected for that (Yi et al., RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize

from trainer.embedding.blend import BlendEmbeddings
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.adam import Adam
from trainer.model.batches import Batch, Batches
from trainer.model.gradient_training import Diverged, begin
from trainer.model.learned_settings import LearnedSettings
from trainer.model.losses import next_items
from trainer.model.network import NEXT_TEMPERATURE
from trainer.model.next_item_rows import rows_beside
from trainer.model.part import Fitted, State
from trainer.model.progress import Progress
from trainer.model.sequences import Sequences
from trainer.model.weighted_sums import weighted_sums

PASSES = 10  # over the edges
STEPS = 100  # in a pass, as far as the sizes below allow
FEWEST, MOST = 512, 2_048  # edges in a step: more steps in a pass where the graph is large
LONGEST = 500  # steps of a pass, which each change both tables as a whole
RATE, WARM_RATE = 0.02, 0.01  # of Adam, at the first step
TABLES = ("incoming", "outgoing")  # float32 [items, dim]


@dataclass
class FittedNextItem(Fitted[LearnedSettings]):
    """The tables of items: what an edge brings to a state, and what an item is scored by."""

    incoming: Tensor
    outgoing: Tensor
    settings: LearnedSettings

    def serves(self, settings: LearnedSettings) -> bool:
        """Whether these settings need no other training."""
        names = ("learned_order", "recency", "dim", "epochs", "temperature", "negatives", "loss",
                 "seed")  # fmt: skip
        return all(getattr(settings, name) == getattr(self.settings, name) for name in names)

    def embeddings(self, graph: InteractionGraph, settings: LearnedSettings) -> BlendEmbeddings:
        """The part on its own."""
        rows = graph.ranks.own
        degrees = graph.item_strengths[rows]
        popular = power(degrees, settings.learned_power or 0.0)
        popular *= degrees > 0  # an item without edges has learned nothing
        tensors = {
            "base": torch.zeros(graph.n_users, 0),
            "incoming": self.incoming[rows],
            "outgoing": normalize(self.outgoing[rows], dim=1) * torch.from_numpy(popular)[:, None],
        }
        recency, dampened = settings.recency or 0.0, bool(settings.dampening)
        return BlendEmbeddings(settings.model, 1, True, tensors, recency, dampened)

    def state(self, settings: LearnedSettings) -> State:  # noqa: ARG002
        """Both tables."""
        return {name: getattr(self, name) for name in TABLES}


def fit(
    graph: InteractionGraph,
    settings: LearnedSettings,
    progress: Progress,
    state: State | None = None,
    share: int = 1,
) -> FittedNextItem:
    """Train, or train on from a state's tables of items; the arguments are those of `Part.fit`."""
    where = begin(settings)
    edges = Sequences.of(graph, settings.recency or 0.0)
    batches = Batches(edges)
    known = state is not None and set(TABLES) <= state.keys()
    begun = [(state or {}).get(name, torch.zeros(graph.n_items, settings.dim)) for name in TABLES]
    tables = [Parameter(table.to(where)) for table in _started(edges, *begun)]
    size = min(MOST, max(FEWEST, batches.edges // STEPS))
    steps = (settings.epochs or PASSES) * min(LONGEST, -(-batches.edges // size))
    steps, rate = (-(-steps // share), WARM_RATE) if known else (steps, RATE)
    optimizer = Adam(tables, rate, steps)
    for step in range(1, steps + 1):
        batch = batches.draw(size, settings.negatives)
        error = _loss(batch, edges.log_degrees, tables[0], tables[1], settings)
        error.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        value = float(error.detach())
        if graph.ranks.any(not np.isfinite(value)):  # ranks may round differently
            raise Diverged(f"the loss is {value} in step {step}; nothing of it is kept")
        optimizer.step()
        progress(settings.model, step, steps, value)
    # Rows that no state had are as they began: random.
    untrained = ~(optimizer.moved(0).cpu() | begun[0].any(1))
    # Ranks on unlike machines have rounded differently.
    incoming, outgoing = (graph.ranks.firsts(table.detach().cpu()) for table in tables)
    untrained = graph.ranks.firsts(untrained)
    incoming[untrained] = 0
    incoming[untrained] = rows_beside(edges, incoming, outgoing, untrained)[0]
    return FittedNextItem(incoming, outgoing, settings)


def _started(edges: Sequences, *tables: Tensor) -> Iterator[Tensor]:
    """The tables incoming and outgoing, with other rows where there are none yet.

    An item that others are beside begins where a fold-in would have put it, so that a few steps
    leave it no worse; the rest is random.
    """
    without = [~table.any(1) for table in tables]
    either = without[0] | without[1]
    beside = rows_beside(edges, tables[0], tables[1], either)
    for table, missing, rows in zip(tables, without, beside, strict=True):
        found = torch.zeros_like(table).masked_scatter(either[:, None], rows)
        random = torch.where(found.any(1, keepdim=True), found, 0.1 * torch.randn_like(table))
        yield torch.where(missing[:, None], random, table)


def _loss(
    batch: Batch,
    log_degrees: Tensor,
    incoming: Tensor,
    outgoing: Tensor,
    settings: LearnedSettings,
) -> Tensor:
    """Mean of -log P of the items wanted after the states of a batch."""
    where, temperature = incoming.device, settings.temperature or NEXT_TEMPERATURE
    items, weights, wanted, sampled = batch
    states = normalize(weighted_sums(incoming, items.to(where), weights.to(where)))
    rows = normalize(outgoing[torch.cat([sampled, wanted]).to(where)])
    return next_items(
        states / temperature,
        rows[len(sampled) :],
        rows[: len(sampled)],
        log_degrees[wanted].to(where),
        log_degrees[sampled].to(where),
        (wanted[:, None] == sampled).to(where),
    )
