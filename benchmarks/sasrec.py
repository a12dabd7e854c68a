"""SASRec with a softmax over all items: a transformer that predicts a user's next item.

The network is of Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018): learned
positions that are counted from the end, causal attention, layer norms before each sublayer, and
item vectors that are input and output. The loss is the cross entropy over all items, as Klenitskiy
and Vasilev ("Turning Dross Into Gold Loss", RecSys 2023) and Petrov and Macdonald ("gSASRec",
RecSys 2023) found to be best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.fit.evaluate import ranking
from trainer.graph.holdout import last_edges
from trainer.graph.interactions import InteractionGraph

DIMENSIONS, LAYERS = 64, 2
RATE = 0.001  # of Adam
POOL = 8  # batches whose users are sorted by length, so that a batch has little padding
SCORES = 2_000_000  # in memory at a time in the loss
VALIDATED = 2_000  # users whose last train edge the best epoch is chosen on, at most
PATIENCE = 20  # epochs without a better one, then training ends


class Settings(NamedTuple):
    """What the papers set by the data."""

    length: int  # a user's last items that are read
    dropout: float
    batch: int  # users


DENSE = Settings(length=50, dropout=0.2, batch=32)
SPARSE = Settings(length=50, dropout=0.5, batch=128)


class Sequences:
    """Each user's items in time order; those of edges without strength are left out."""

    def __init__(self, graph: InteractionGraph) -> None:
        order = graph.by_time()
        order = order[graph.strengths[order] > 0]
        self.items = torch.from_numpy(graph.items[order]).long()
        self.lengths = torch.from_numpy(graph.users[order]).bincount(minlength=graph.n_users)
        self.ends = self.lengths.cumsum(0)
        self.padding = graph.n_items

    def last(self, users: Tensor, most: int, skipped: Tensor | int = 0) -> Tensor:
        """Items up to the last but `skipped`, int64 [users, at most `most`], padded on the left."""
        ends, lengths = self.ends[users] - skipped, self.lengths[users].clamp(max=most)
        back = torch.arange(max(1, int(lengths.max())), 0, -1)  # places from the end
        items = self.items[(ends[:, None] - back).clamp(min=0)]
        return items.masked_fill(back > lengths[:, None], self.padding)

    def drawn(self, users: Tensor, most: int) -> Tensor:
        """As `last`, up to a random one, so that long users are read whole in the end."""
        spare = (self.lengths[users] - most).clamp(min=0)
        return self.last(users, most, (torch.rand(len(users)) * (spare + 1)).long())


class Block(nn.Module):
    """Attention with one head, then two pointwise layers; each adds to what it is given."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(DIMENSIONS) for _ in range(2))
        self.mixed = nn.Linear(DIMENSIONS, 3 * DIMENSIONS)
        self.attended = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.dropout = nn.Dropout(settings.dropout)
        inner, outer = (nn.Linear(DIMENSIONS, DIMENSIONS) for _ in range(2))
        self.pointwise = nn.Sequential(inner, nn.ReLU(), self.dropout, outer)

    def forward(self, states: Tensor, seen: Tensor) -> Tensor:
        """States float32 [users, places, DIMENSIONS]; `seen` says which place looks at which."""
        query, key, value = self.mixed(self.norms[0](states)).chunk(3, -1)
        share = self.dropout.p if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, seen, share)
        states = states + self.dropout(self.attended(found))
        made: Tensor = states + self.dropout(self.pointwise(self.norms[1](states)))
        return made


class SASRec(nn.Module):
    """The network; item number n_items is the padding."""

    def __init__(self, n_items: int, settings: Settings) -> None:
        super().__init__()
        self.padding = n_items
        self.items = nn.Embedding(n_items + 1, DIMENSIONS, padding_idx=n_items)
        nn.init.normal_(self.items.weight, std=0.02)
        self.positions = nn.Parameter(0.02 * torch.randn(settings.length, DIMENSIONS))
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(DIMENSIONS)

    def forward(self, items: Tensor) -> Tensor:
        """What follows each item: states float32 [users, places, DIMENSIONS]."""
        places = items.shape[1]
        given = self.items(items) * DIMENSIONS**0.5 + self.positions[-places:]
        real = (items < self.padding)[:, None, :]
        seen = (real | torch.eye(places, dtype=torch.bool)).tril()
        states: Tensor = self.dropout(given)
        for block in self.blocks:
            states = block(states, seen)
        made: Tensor = self.norm(states)
        return made


class CrossEntropy(torch.autograd.Function):
    """The mean cross entropy over all items, made with the gradients, some rows at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, wanted: Tensor) -> Tensor:
        """states [places, DIMENSIONS], table [items, DIMENSIONS], wanted int64 [places]."""
        loss = torch.zeros(())
        of_states, of_table = torch.empty_like(states), torch.zeros_like(table)
        rows = max(1, SCORES // len(table))
        for begin in range(0, len(states), rows):
            some, at = states[begin : begin + rows], wanted[begin : begin + rows, None]
            scores = some @ table.T
            total = scores.logsumexp(1, keepdim=True)
            loss += (total - scores.gather(1, at)).sum()
            shares = scores.sub_(total).exp_()
            shares.scatter_add_(1, at, torch.full_like(total, -1.0))
            torch.mm(shares, table, out=of_states[begin : begin + rows])
            of_table.addmm_(shares.T, some)
        ctx.save_for_backward(of_states / len(states), of_table / len(states))
        return loss / len(states)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients that `forward` has made; the items wanted have none."""
        of_states, of_table = ctx.saved_tensors
        return given * of_states, given * of_table, None


def batches(lengths: Tensor, size: int) -> Iterator[Tensor]:
    """Numbers of the users of two items and more, in random batches of about one length."""
    drawn = torch.randperm(len(lengths))
    users = drawn[lengths[drawn] > 1]
    made: list[Tensor] = []
    for pool in torch.split(users, POOL * size):
        made += torch.split(pool[lengths[pool].argsort()], size)
    return (made[at] for at in torch.randperm(len(made)).tolist())


def scorer(model: SASRec, graph: InteractionGraph, length: int) -> Callable[[Tensor], Tensor]:
    """Scores of all items after the users' items in `graph`."""
    sequences = Sequences(graph)

    @torch.no_grad()
    def score(users: Tensor) -> Tensor:
        states: Tensor = model.eval()(sequences.last(users, length))
        return states[:, -1] @ model.items.weight[:-1].T

    return score


def sasrec(
    train: InteractionGraph, test: InteractionGraph, settings: Settings, limit: float
) -> dict[str, float]:
    """Trained for `limit` seconds of a core at most; figures of the epoch with the best NDCG.

    The last train edges by which the best epoch is chosen are never trained on.
    """
    begun = time.process_time()
    torch.manual_seed(0)
    aside = last_edges(train) & (train.users % -(-train.n_users // VALIDATED) == 0)
    known, next_ones = train.subset(~aside), train.subset(aside)
    sequences, model = Sequences(known), SASRec(train.n_items, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.98))
    best, best_epoch, epoch, late, kept = -1.0, 0, 0, False, model.state_dict()
    while not late and epoch - best_epoch < PATIENCE:
        epoch += 1
        model.train()
        for users in batches(sequences.lengths, settings.batch):
            if late := time.process_time() - begun > limit:
                break
            items = sequences.drawn(users, settings.length + 1)
            given, wanted = items[:, :-1], items[:, 1:]
            real = given < train.n_items
            answers = model(given)[real], model.items.weight[:-1], wanted[real]
            loss: Tensor = CrossEntropy.apply(*answers)  # type: ignore[no-untyped-call]  # torch's
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        reached = ranking(scorer(model, known, settings.length), known, next_ones)["ndcg@20"]
        if reached > best:
            best, best_epoch = reached, epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
    seconds = time.process_time() - begun
    model.load_state_dict(kept)
    return ranking(scorer(model, train, settings.length), train, test) | {
        "core_seconds": seconds, "limit": limit, "ended_by_itself": not late,
        "epochs": epoch, "best_epoch": best_epoch, "validation_ndcg@20": best,
    }  # fmt: skip
