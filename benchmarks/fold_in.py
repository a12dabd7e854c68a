"""What a list made from a user's edges alone is worth against one after a retrain (Gowalla).

Two models are trained: one in full, one without all train edges of one in fifty users and
without n random train edges of each of as many others, for n = 1, 5, 10 (Gowalla's split has
no times). The second answers with every train edge, as serving does after events: folded in.
recall@20 on the test file, all items ranked but those in the train file; means over the same users.

`untouched` are the users of whom both models have all edges: what they lose is not the fold-in's,
but that of items which miss the others' edges. Besides: what is lost by the two passes in which
serving ranks a wide model (serving/lists/topk.py).
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_gowalla import DATA, published
from benchmarks.synthetic import Result
from serving.lists.topk import FirstPass, best
from streamgcn.files.load import table
from trainer.embedding.edges import own
from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import Scorer, popularity, ranking, scorer
from trainer.fit.fit import fit_all
from trainer.graph.interactions import InteractionGraph
from trainer.model.progress import quiet

NEW_EVENTS = (1, 5, 10)
SHARE = 0.02  # of the users in each group: few, since items miss their edges
RECALL = "recall@20"
LENGTH = 50  # of a list


def gowalla() -> tuple[InteractionGraph, InteractionGraph]:
    """The published split; both graphs have the same nodes."""
    if not (DATA / "gowalla-train.parquet").exists():
        sys.exit(f"{DATA} has no gowalla-train.parquet; set DATA to the folder that has the split")
    train = InteractionGraph()
    train.extend(table(DATA / "gowalla-train.parquet"))
    test = InteractionGraph(train.user_ids, train.item_ids)
    test.extend(table(DATA / "gowalla-test.parquet"))
    return train, test


def fold_in(vectors: int, epochs: int) -> Result:
    """Recall of the folded-in lists over that of the retrained ones."""
    train, test = gowalla()
    rng = np.random.default_rng(0)
    users = rng.permutation(train.n_users)
    some = int(SHARE * len(users))
    never, *parts, untouched = np.split(users, [some * n for n in range(1, len(NEW_EVENTS) + 2)])
    groups = dict(zip(NEW_EVENTS, parts, strict=True))
    new = np.isin(train.users, never)
    drawn = np.lexsort((rng.random(len(train)), train.users))  # each user's edges at random
    rank = np.arange(len(train)) - train.starts[train.users]  # edges are sorted by user
    for n, group in groups.items():
        new[drawn[(rank < n) & np.isin(train.users, group)]] = True
    older = train.subset(~new)

    settings = replace(published(), vectors=vectors, epochs=epochs)
    begun = time.monotonic()
    retrained, live = fit_all(train, settings, quiet), fit_all(older, settings, quiet)
    made: Result = {
        "vectors": vectors,
        "epochs": epochs,
        "edges_held_out": round(new.mean(), 3),
        "two_trainings_s": round(time.monotonic() - begun),
    }
    made["two_passes"] = two_passes(retrained, train, test)
    unknown = np.zeros(train.n_users, bool)
    unknown[never] = True
    folded = folding(live, train, torch.from_numpy(unknown))
    scorers = {"retrained": scorer(retrained, train), "folded_in": folded}
    made["never_seen"] = compared(scorers | {"popular": popularity(older)}, train, test, never)
    made["untouched"] = compared(scorers, train, test, untouched)
    for n, group in groups.items():
        found = compared(scorers | {"before": scorer(live, older)}, train, test, group)
        made[f"after_{n}_events"] = found
    others = made["untouched"]["folded_in_ratio"]
    made["never_seen"]["over_untouched"] = round(made["never_seen"]["folded_in_ratio"] / others, 4)
    return made


def two_passes(model: Embeddings, train: InteractionGraph, test: InteractionGraph) -> Result:
    """Recall of serving's lists over that of all items ranked by all columns, for all users."""

    first = FirstPass.of(model, LENGTH)

    def served(users: Tensor) -> Tensor:
        scores, items = best(model, first, users, own(train, users), LENGTH)
        return torch.full((len(users), train.n_items), -torch.inf).scatter_(1, items, scores)

    exact, ours = (ranking(score, train, test)[RECALL] for score in (scorer(model, train), served))
    return {"exact": round(exact, 4), "served": round(ours, 4), "ratio": round(ours / exact, 4)}


def folding(live: Embeddings, graph: InteractionGraph, unknown: Tensor) -> Scorer:
    """Scores by the edges in `graph`, of users `unknown` (bool [users]) without what is theirs."""
    return lambda users: live.score(users.masked_fill(unknown[users], -1), own(graph, users))


def compared(
    scorers: dict[str, Scorer], train: InteractionGraph, test: InteractionGraph, users: np.ndarray
) -> Result:
    """Recall of each scorer, and the others' over the retrained one's."""
    theirs = test.subset(np.isin(test.users, users))
    made = {name: ranking(score, train, theirs)[RECALL] for name, score in scorers.items()}
    ratios = {f"{name}_ratio": made[name] / made["retrained"] for name in made}
    del ratios["retrained_ratio"]
    return {"users": len(users)} | {n: round(v, 4) for n, v in (made | ratios).items()}
