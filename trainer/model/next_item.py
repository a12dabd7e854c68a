"""The learned part where order counts: item vectors that predict the next item of a user.

    state  = sum over the user's items i so far of R_ui (1 + age_ui)^-recency incoming_i
    P(j next) = softmax over j of <unit(state), unit(outgoing_j)> / temperature

with the age as it was at that moment. A user has no vector of its own, as in FPMC (Rendle et al.,
WWW 2010) and Fossil (He & McAuley, ICDM 2016): a user is what the user's edges bring, so the list
of a new user is as good as after a retraining. The softmax is taken over a sample that all states
share, drawn by popularity and corrected for that (Yi et al., RecSys 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import embedding_bag, normalize

from trainer.embedding.blend import BlendEmbeddings
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import power
from trainer.model.adam import Adam
from trainer.model.gradient_training import Diverged, begin
from trainer.model.learned_settings import LearnedSettings
from trainer.model.network import NEXT_TEMPERATURE
from trainer.model.part import Fitted, State
from trainer.model.progress import Progress

PASSES = 10  # over the edges
STEPS = 100  # in a pass, as far as the sizes below allow
FEWEST, MOST = 512, 2_048  # edges in a step: more steps in a pass where the graph is large
LONGEST = 5_000  # steps, unless the number of passes is set: each changes both tables as a whole
RATE, WARM_RATE = 0.02, 0.01  # of Adam, at the first step
WINDOW = 50  # items of a state that are looked at in a training
FURTHER = 0.5  # chance to skip an item: wanted is the next one, or in 1/4 the second, and so on
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
        popular = power(graph.item_strengths, settings.learned_power or 0.0)
        popular *= graph.item_strengths > 0  # an item without edges has learned nothing
        tensors = {
            "base": torch.zeros(graph.n_users, 0),
            "incoming": self.incoming,
            "outgoing": normalize(self.outgoing, dim=1) * torch.from_numpy(popular)[:, None],
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
    tables = [
        Parameter(_started((state or {}).get(name), graph.n_items, settings.dim).to(where))
        for name in TABLES
    ]
    known = state is not None and set(TABLES) <= state.keys()
    edges = Sequences.of(graph, settings.recency or 0.0)
    size = min(MOST, max(FEWEST, len(edges.later) // STEPS))
    steps = (settings.epochs or PASSES) * -(-len(edges.later) // size)
    steps = steps if settings.epochs else min(LONGEST, steps)
    steps, rate = (-(-steps // share), WARM_RATE) if known else (steps, RATE)
    optimizer = Adam(tables, rate, steps)
    for step in range(1, steps + 1):
        error = _loss(edges, size, tables[0], tables[1], settings)
        error.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        value = float(error.detach())
        if not np.isfinite(value):
            raise Diverged(f"the loss is {value} in step {step}; nothing of it is kept")
        optimizer.step()
        progress(settings.model, step, steps, value)
    incoming, outgoing = (table.detach().cpu() for table in tables)
    incoming[~edges.stand_before(graph.n_items)] = 0  # no state had them: they are random
    return FittedNextItem(incoming, outgoing, settings)


@dataclass(frozen=True)
class Sequences:
    """The edges of all users in their order, one user after another, without those of strength 0.

    items, users: int32 [edges]; strengths: float32 [edges]; starts: int64 [users + 1], where the
    edges of each user with edges begin; fading: float32 [users], the recency, and 0 for a user
    whose edges all have the same time; later: int64 [predicted], edges that are not the first of
    their users; log_degrees: float32 [items].
    """

    items: Tensor
    users: Tensor
    strengths: Tensor
    starts: Tensor
    fading: Tensor
    later: Tensor
    log_degrees: Tensor

    @classmethod
    def of(cls, graph: InteractionGraph, recency: float) -> Self:
        """The sequences of a graph."""
        order = graph.by_time()
        order = order[graph.strengths[order] > 0]
        users, items = graph.users[order], graph.items[order]
        first = np.concatenate([[True], users[1:] != users[:-1]])[: len(users)]
        starts, numbers = np.flatnonzero(first), np.cumsum(first, dtype=np.int32) - 1
        fading = np.where(graph.timed[users[starts]], recency, 0.0).astype(np.float32)
        degrees = np.bincount(items, minlength=graph.n_items).clip(min=1)
        return cls(
            torch.from_numpy(items),
            torch.from_numpy(numbers),
            torch.from_numpy(graph.strengths[order]),
            torch.from_numpy(np.append(starts, len(users))),
            torch.from_numpy(fading),
            torch.from_numpy(np.flatnonzero(~first)),
            torch.from_numpy(np.log(degrees).astype(np.float32)),
        )

    def stand_before(self, n_items: int) -> Tensor:
        """Which items stand before another one in a sequence, bool [items]."""
        made = torch.zeros(n_items, dtype=torch.bool)
        made[self.items[self.later - 1]] = True
        return made

    def before(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """The items of the states that come before edges int64 [n], and their weights.

        Returns:
            int32 [n, WINDOW], the newest first, and float32 [n, WINDOW], 0 where there is none.
        """
        ages = torch.arange(WINDOW)
        places = edges[:, None] - 1 - ages
        users = self.users[edges]
        inside = places >= self.starts[users, None]
        places = torch.where(inside, places, 0)
        faded = (1.0 + ages) ** -self.fading[users, None]
        return self.items[places], self.strengths[places] * faded * inside


def _started(table: Tensor | None, items: int, dim: int) -> Tensor:
    """A table with random rows where there are none yet."""
    fresh = 0.1 * torch.randn(items, dim)
    return fresh if table is None else torch.where(table.any(1, keepdim=True), table, fresh)


def _loss(
    edges: Sequences, size: int, incoming: Tensor, outgoing: Tensor, settings: LearnedSettings
) -> Tensor:
    """Mean of -log P of the items of `size` edges, drawn at random."""
    where, temperature = incoming.device, settings.temperature or NEXT_TEMPERATURE
    asked = edges.later[torch.randint(len(edges.later), (size,))]
    sampled = edges.items[torch.randint(len(edges.items), (settings.negatives,))]
    items, weights = (part.to(where) for part in edges.before(asked))
    states = normalize(embedding_bag(items, incoming, per_sample_weights=weights, mode="sum"))
    ahead = asked + torch.empty(size).geometric_(1 - FURTHER).long() - 1
    last = edges.starts[edges.users[asked] + 1] - 1
    wanted = edges.items[torch.minimum(ahead, last)]
    states = states / temperature
    rows = normalize(outgoing[torch.cat([sampled, wanted]).to(where)])
    drawn, target = rows[: len(sampled)], rows[len(sampled) :]
    scores = torch.addmm(-edges.log_degrees[sampled].to(where), states, drawn.T)
    itself = sampled.to(where) == wanted.to(where)[:, None]
    of_wanted = (states * target).sum(1) - edges.log_degrees[wanted].to(where)
    others = scores.masked_fill(itself, -torch.inf).logsumexp(1)
    return (torch.logaddexp(others, of_wanted) - of_wanted).mean()
