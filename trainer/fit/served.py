"""Offline measures of what users are served: the model's list, or the popular one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.embedding.embeddings import Embeddings
from trainer.fit.evaluate import AT, both, popular_list, popularity, rankings, scorer
from trainer.graph.holdout import judged_users
from trainer.graph.interactions import InteractionGraph


def measure_served(
    embeddings: Embeddings,
    train: InteractionGraph,
    test: InteractionGraph,
    at: Sequence[int] = AT,
) -> dict[str, dict[str, float]]:
    """The figures of what users are served: the model's list, or the popular one without edges.

    A test edge that is a train edge too is not asked for: it is in no list. A known user is one
    with a train edge of some strength; to all others serving gives the popular list.

    Returns:
        Hit rate, recall and NDCG at each of `at`, of popularity too, and `users` with test edges,
        by all_users, known_users and new_users; without users there are no figures.
    """
    test = unseen(test, train)
    known = train.user_strengths > 0
    score, recent, popular = scorer(embeddings, train), popular_list(train), popularity(train)
    made: dict[str, dict[str, float]] = {}
    for name, scores, mask in (("known_users", score, known), ("new_users", recent, ~known)):
        part = test.subset(mask[test.users])
        made[name] = {"users": judged_users(part)}
        if made[name]["users"]:
            figures, baseline = rankings(both(scores, popular), train, part, at)
            made[name] |= figures | {f"popularity_{key}": baseline[key] for key in baseline}
    return {"all_users": _together([group for group in made.values() if group["users"]])} | made


def _together(groups: list[dict[str, float]]) -> dict[str, float]:
    """Means over the users of several groups."""
    users = sum(group["users"] for group in groups)
    return {
        name: users if name == "users" else sum(g["users"] * g[name] for g in groups) / users
        for name in groups[0]
    }


def unseen(test: InteractionGraph, train: InteractionGraph) -> InteractionGraph:
    """The test edges that are no train edges; both graphs have the same nodes."""
    edges, old = (g.users.astype(np.int64) * train.n_items + g.items for g in (test, train))
    return test.subset(~np.isin(edges, old))
