"""Whether a candidate may go live: what it has to show on edges that it has not seen."""

from __future__ import annotations

import numpy as np

from trainer.evaluate import predictions, ranking, rmse, scorer
from trainer.fit import JUDGED_USERS, Fit
from trainer.graph import InteractionGraph
from trainer.lifecycle.snapshots import Snapshot
from trainer.lifecycle.warm import aligned

TOLERANCE = 0.98  # of the live model's NDCG@20
MOST_USERS = 10_000


def objection(fitted: Fit, graph: InteractionGraph, live: Snapshot | None) -> str:
    """Why the candidate must not go live, or nothing.

    It must beat popularity on the held-out edges (a gcn that predicts interactions: their mean),
    and come up to the live model on those of them that are newer than the live model, which had the
    others in its filters. With fewer than JUDGED_USERS users there is no verdict, and the candidate
    goes live.
    """
    kept, held_out = fitted.kept, fitted.held_out
    if _users(held_out) < JUDGED_USERS:
        return ""
    metrics, predicts = fitted.metrics, "rmse" in fitted.metrics
    own, popular = metrics["ndcg@20"], metrics["popularity_ndcg@20"]
    if predicts and metrics["rmse"] >= metrics["rmse_mean"]:
        return (
            f"its rmse of {metrics['rmse']:.4f} on the newest edges is not below the mean's "
            f"{metrics['rmse_mean']:.4f}"
        )
    if not predicts and own <= popular:
        return (
            f"its ndcg@20 of {own:.4f} on the newest edges is not above popularity's {popular:.4f}"
        )
    if live is None:
        return ""
    unseen = held_out.subset(held_out.timestamps > live.manifest.newest)
    if _users(unseen) < JUDGED_USERS:
        return ""
    embeddings = fitted.candidate, aligned(live, graph)
    if predicts:
        mine, its = (rmse(predictions(e, kept, unseen), unseen.weights) for e in embeddings)
        if mine * TOLERANCE <= its:
            return ""
        return (
            f"its rmse of {mine:.4f} on edges newer than the live model {live.manifest.version}, "
            f"times {TOLERANCE}, is above that one's {its:.4f}"
        )
    mine, its = (
        ranking(scorer(e, kept), kept, unseen, most=MOST_USERS)["ndcg@20"] for e in embeddings
    )
    if mine < TOLERANCE * its:
        return (
            f"its ndcg@20 of {mine:.4f} on edges newer than the live model "
            f"{live.manifest.version} is below {TOLERANCE} of that one's {its:.4f}"
        )
    return ""


def _users(graph: InteractionGraph) -> int:
    return int(np.count_nonzero(graph.user_strengths))
