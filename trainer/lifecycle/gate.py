"""Whether a candidate may go live: what it has to show on edges that it has not seen."""

from __future__ import annotations

import numpy as np

from trainer.embedding.embeddings import Embeddings
from trainer.embedding.predictions import predictions
from trainer.fit.evaluate import both, ndcgs, scorer
from trainer.fit.fit import Trial
from trainer.graph.arrays import Float64s, Int8s
from trainer.graph.holdout import JUDGED_USERS, UNSEEN, judged_users
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.manifest import Snapshot

TOLERANCE = 0.98  # of the live model's NDCG@20
CERTAIN = 2.0  # standard errors by which a candidate must be worse: one of forty is so by chance
LOOKS = 2_500, 10_000  # users in the first look, and in a second one where that leaves a doubt


def objection(
    trial: Trial, graph: InteractionGraph, live: Snapshot | None, novelty: Int8s | None
) -> str:
    """Why the candidate must not go live, or nothing.

    It must beat popularity on the held-out edges (a gcn that predicts interactions: their mean),
    and must not be worse than the live model, by more than chance, on those of them that the live
    model was not trained on. With fewer than JUDGED_USERS users there is no verdict, and the
    candidate goes live.

    Args:
        live: `aligned` with the graph.
        novelty: of each edge to the live model, [edges]; None where that does not tell.
    """
    kept, held_out, metrics = trial.kept, trial.held_out, trial.metrics
    if judged_users(held_out) < JUDGED_USERS:
        return ""
    predicts = "rmse" in metrics
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
    if live is None or novelty is None:
        return ""
    unseen = graph.subset(trial.newest & (novelty == UNSEEN))
    if judged_users(unseen) < JUDGED_USERS:
        return ""
    models = (trial.candidate, live.embeddings)
    if predicts:
        mine, its = (_errors(embeddings, kept, unseen) for embeddings in models)
    else:
        scores = both(*(scorer(embeddings, kept) for embeddings in models))
        for most in LOOKS:
            mine, its = ndcgs(scores, kept, unseen, most=most)
            if _below_zero(TOLERANCE * its - mine):
                return ""  # it is surely good enough
    of = f"on edges that are new to the live model {live.manifest.version}"
    if predicts and _below_zero(its - TOLERANCE**2 * mine):
        mine_, its_ = (float(np.sqrt(errors.mean())) for errors in (mine, its))
        return f"its rmse of {mine_:.4f} {of}, times {TOLERANCE}, is above that one's {its_:.4f}"
    if not predicts and _below_zero(mine - TOLERANCE * its):
        return (
            f"its ndcg@20 of {mine.mean():.4f} {of} is below {TOLERANCE} of that one's "
            f"{its.mean():.4f}"
        )
    return ""


def _errors(embeddings: Embeddings, kept: InteractionGraph, unseen: InteractionGraph) -> Float64s:
    """Squared error of each edge that is predicted, float64 [edges of unseen]."""
    predicted = predictions(embeddings, kept, unseen).astype(np.float64)
    errors: Float64s = (predicted - unseen.weights.astype(np.float64)) ** 2
    return errors


def _below_zero(differences: Float64s) -> bool:
    """Whether their mean is, by more than chance: a few users differ much from one another."""
    spread = differences.std() / np.sqrt(len(differences))
    return bool(differences.mean() + CERTAIN * spread < 0)
