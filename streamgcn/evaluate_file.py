"""The command `evaluate`: train on a file, measure on another."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serving.settings import ServingSettings
from streamgcn import files
from streamgcn.file_options import (
    InteractionColumn,
    ItemColumn,
    TimestampColumn,
    TypeColumn,
    UserColumn,
)
from streamgcn.terminal import progress


def evaluate(
    train: Annotated[Path, typer.Option(help="Interactions to learn from.", exists=True)],
    test: Annotated[
        Path | None, typer.Option(help="To measure on; else each user's newest tenth.", exists=True)
    ] = None,
    user_column: UserColumn = "user_id",
    item_column: ItemColumn = "item_id",
    interaction_column: InteractionColumn = "interaction",
    timestamp_column: TimestampColumn = "timestamp",
    type_column: TypeColumn = "type",
) -> None:
    """Train on a file and measure on another, every item ranked; prints JSON.

    Recall and NDCG at 20; with STREAMGCN_MODEL=gcn the RMSE too, beside that of the mean and of
    user and item biases. What the settings leave open is chosen on edges held out of the training
    file; where they leave nothing open, all of it is trained on.
    """
    from trainer.evaluate import measure
    from trainer.fit import fit, fit_all, held_out_edges
    from trainer.graph import InteractionGraph
    from trainer.parallel import first

    settings = ServingSettings.load()
    columns = files.Columns(
        user_column, item_column, interaction_column, timestamp_column, type_column
    )
    started = time.monotonic()
    graph = InteractionGraph(weighing=settings.weighing())
    graph.extend(files.rows(files.read(train, columns)))
    hyperparameters = settings.hyperparameters()
    if test:
        tested = InteractionGraph(graph.user_ids, graph.item_ids, weighing=graph.weighing)
        tested.extend(files.rows(files.read(test, columns)))
        kept = graph.subset(graph.users >= 0)  # the same ids, now with the test file's
    else:
        newest = held_out_edges(graph)
        kept, tested = graph.subset(~newest), graph.subset(newest)
    if not tested.strengths.any():
        raise files.FileError(
            f"{test or train} leaves nothing to measure on: no positive interaction, or no user "
            "with five; give another file with --test"
        )
    held_out: dict[str, float] = {}
    with progress("training", 1) as bar:

        def advance(_: str, done: int, steps: int, __: float | None) -> None:
            bar(min(1.0, done / steps))

        if hyperparameters.missing() or hyperparameters.model == "gcn":
            fitted = fit(kept, hyperparameters, advance)
            embeddings, hyperparameters = fitted.embeddings, fitted.settings
            held_out = fitted.metrics
        else:
            embeddings = fit_all(kept, hyperparameters, advance)
    if not first():
        return
    trained = time.monotonic()
    figures = measure(embeddings, kept, tested)
    result: dict[str, object] = {
        "model": hyperparameters.model,
        **{name: round(value, 5) for name, value in figures.items()},
        "users": kept.n_users,
        "items": kept.n_items,
        "train_edges": len(kept),
        "test_edges": len(tested),
        "held_out": {name: round(value, 5) for name, value in held_out.items()},
        "settings": asdict(hyperparameters),
        "seconds": {
            "train": round(trained - started, 1),
            "evaluate": round(time.monotonic() - trained, 1),
        },
    }
    typer.echo(json.dumps(result, indent=2))
