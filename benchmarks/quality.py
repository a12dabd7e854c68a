"""The defaults beside other models on data in time order: quality and time, and ratios of both.

Held out is each user's newest tenth, or each user's last edge as in the literature on sequences;
what is open in the defaults is chosen on the same share of the other edges, or on the last of
them. SASRec gets TIMES (of the environment, 10 without it) times the seconds that the defaults
took in the same run. Seconds are of all cores together; other work on the machine is not in them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from benchmarks import sasrec
from benchmarks.bench_gowalla import DATA
from benchmarks.other_models import Figures, Result, ease, implicit_models, item_neighbours
from streamgcn.files.load import table
from trainer.embedding.predictions import predictions, rmse
from trainer.fit.evaluate import popularity, ranking, scorer
from trainer.fit.fit import fit
from trainer.graph.holdout import held_out_edges, last_edges
from trainer.graph.interactions import InteractionGraph
from trainer.model.biases import predicted_by_biases
from trainer.model.hyperparameters import Hyperparameters

TIMES = float(os.environ.get("TIMES", "10"))
MOVIELENS, GAMES = "ml-latest-small-ratings.csv", "amazon-video-games.parquet"
COMPARED = ("recall@20", "ndcg@20", "core_seconds")


def split(file: str, last: bool = False) -> tuple[InteractionGraph, InteractionGraph]:
    """A file's interactions without and with each user's newest tenth, or each user's last one."""
    graph = InteractionGraph()
    graph.extend(table(DATA / file))
    newest = last_edges(graph) if last else held_out_edges(graph)
    return graph.subset(~newest), graph.subset(newest)


def side_by_side(file: str, last: bool, settings: sasrec.Settings) -> Result:
    """All models on one split; beside the figures of each rival, ours divided by them."""
    train, test = split(file, last)
    begun = time.process_time()
    fitted = fit(train, Hyperparameters(), newest=last_edges(train) if last else None)
    seconds = time.process_time() - begun
    ours = ranking(scorer(fitted.embeddings, train), train, test) | {"core_seconds": seconds}
    made: Result = {"chosen": asdict(fitted.settings)}
    _add(made, "defaults", ours)
    rivals: tuple[Callable[[], dict[str, Figures]], ...] = (
        lambda: {"popularity": ranking(popularity(train), train, test)},
        lambda: {"item neighbours": item_neighbours(train, test)},
        lambda: implicit_models(train, test),
        lambda: {"EASE": ease(train, test)},
        lambda: {"SASRec": sasrec.sasrec(train, test, settings, TIMES * seconds)},
    )
    for rival in rivals:
        for name, figures in rival().items():
            compared = [key for key in COMPARED if figures.get(key)]
            ratios = {f"ours_over_{key}": ours[key] / figures[key] for key in compared}
            _add(made, name, figures | ratios)
    return made


def _add(made: Result, name: str, figures: Figures) -> None:
    """Also shown at once: the next model may take an hour."""
    made[name] = figures
    print(json.dumps({name: figures}), file=sys.stderr, flush=True)


def movielens() -> Result:
    """ml-latest-small, newest tenth, and the RMSE of the gcn, which predicts the ratings."""
    made = side_by_side(MOVIELENS, False, sasrec.DENSE)
    train, test = split(MOVIELENS)
    gcn = fit(train, Hyperparameters("gcn"))
    made["rmse"] = {
        "gcn, mse": rmse(predictions(gcn.embeddings, train, test), test.weights),
        "user and item biases": rmse(predicted_by_biases(train, test), test.weights),
    }
    return made


def movielens_last() -> Result:
    """ml-latest-small, each user's last edge."""
    return side_by_side(MOVIELENS, True, sasrec.DENSE)


def games() -> Result:
    """The video games, in the order of each user, newest tenth."""
    return side_by_side(GAMES, False, sasrec.SPARSE)


def games_last() -> Result:
    """The video games, each user's last edge."""
    return side_by_side(GAMES, True, sasrec.SPARSE)
