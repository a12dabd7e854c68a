"""The command `evaluate`: train on a file, measure on another."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import pyarrow as pa
import typer

from serving.settings import ServingSettings
from streamgcn.cli import file_options as given
from streamgcn.files.columns import Columns
from streamgcn.files.load import load
from streamgcn.files.options import Options
from streamgcn.files.source import FileError
from streamgcn.terminal import progress


def evaluate(
    train: Annotated[str, typer.Option(help="Interactions to learn from, read as `publish` does.")],
    test: Annotated[
        str | None,
        typer.Option(help="Interactions to measure on; without it, each user's newest tenth."),
    ] = None,
    user_column: given.UserColumn = None,
    item_column: given.ItemColumn = None,
    interaction_column: given.InteractionColumn = None,
    timestamp_column: given.TimestampColumn = None,
    type_column: given.TypeColumn = None,
    columns: given.Names = "",
    separator: given.Separator = None,
    encoding: given.Encoding = None,
    timestamp_format: given.TimestampFormat = None,
    skip_invalid: given.SkipInvalid = False,
) -> None:
    """Train on a file and measure on another, every item ranked; prints JSON.

    Recall and NDCG at 20, beside popularity's, of all users and apart for known users and for new
    ones, who have no train edge and are served the popular list; with STREAMGCN_MODEL=gcn the RMSE
    too, beside that of the mean and of user and item biases. What the settings leave open is chosen
    on edges held out of the training file; where they leave nothing open, all of it is trained on.
    """
    from trainer.fit.evaluate import measure_rmse, measure_served, unseen
    from trainer.fit.fit import fit, fit_all
    from trainer.graph.holdout import held_out_edges
    from trainer.graph.interactions import InteractionGraph
    from trainer.model.model_file import written
    from trainer.model.parallel import first

    settings = ServingSettings.load()
    named = Columns(user_column, item_column, interaction_column, timestamp_column, type_column)
    options = given.options(named, columns, separator, encoding, timestamp_format, skip_invalid)
    given.end_by_interrupts()
    started = time.monotonic()
    graph = InteractionGraph(weighing=settings.weighing())
    graph.extend(_rows(train, options))
    hyperparameters = settings.hyperparameters()
    if test:
        tested = InteractionGraph(graph.user_ids, graph.item_ids, weighing=graph.weighing)
        tested.extend(_rows(test, options))
        kept = graph.subset(graph.users >= 0)  # the same ids, now with the test file's
    else:
        newest = held_out_edges(graph, liked=hyperparameters.objective != "mse")
        kept, tested = graph.subset(~newest), graph.subset(newest)
    asked = unseen(tested, kept)
    if not asked.strengths.any():
        raise FileError(
            f"{test or train} leaves nothing to measure on: no positive interaction that is not in "
            "the train file too, or no user with five; give another file with --test"
        )
    held_out: dict[str, float] = {}
    with progress("training", 1) as bar:

        def advance(_: str, done: int, steps: int, __: float | None) -> None:
            bar(min(1.0, done / steps))

        hyperparameters = hyperparameters.for_graph(len(kept), bool(kept.timed.any()))
        if hyperparameters.needs_held_out:
            fitted = fit(kept, hyperparameters, advance)
            embeddings, hyperparameters = fitted.embeddings, fitted.settings
            held_out = fitted.metrics
        else:
            embeddings = fit_all(kept, hyperparameters, advance)
    if not first():
        return
    trained = time.monotonic()
    served = measure_served(embeddings, kept, asked)
    figures = served.pop("all_users") | measure_rmse(embeddings, kept, tested)
    figures["measured_users"] = figures.pop("users")
    result: dict[str, object] = {
        "model": hyperparameters.model,
        **_rounded(figures),
        **{name: _rounded(group) for name, group in served.items()},
        "users": kept.n_users,
        "items": kept.n_items,
        "train_edges": len(kept),
        "train_edges_without_strength": int((kept.strengths == 0).sum()),
        "test_edges": len(tested),
        "test_edges_in_train": len(tested) - len(asked),
        "held_out": _rounded(held_out),
        "settings": asdict(hyperparameters),
        "seconds": {
            "train": round(trained - started, 1),
            "evaluate": round(time.monotonic() - trained, 1),
        },
    }
    typer.echo(json.dumps(result, indent=2))
    typer.echo("\n# These numbers as a file for STREAMGCN_MODEL_FILE:", err=True)
    typer.echo(written(hyperparameters), err=True, nl=False)


def _rows(file: str, options: Options) -> pa.Table:
    with load([file], options) as loaded:
        given.tell(loaded)
        return loaded.table()


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items()}
