"""The command `evaluate`: train on a file, measure on another."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from enum import StrEnum
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

MOST = 1_000  # items of a list that are measured


class HoldOut(StrEnum):
    """Which interactions of a file are measured on, where no other file is given."""

    NEWEST = "newest"
    LAST = "last"


PROTOCOLS = {  # what is measured on, and what is chosen on
    HoldOut.NEWEST: (
        "each user's newest tenth of interactions, or a random fifth without times",
        "the same share of the other interactions",
    ),
    HoldOut.LAST: (
        "each user's last interaction",
        "each user's interaction before the last",
    ),
}


def places(text: str) -> list[int]:
    """Numbers such as 10,20.

    Raises:
        BadParameter: they are none from 1 to MOST.
    """
    numbers = text.split(",")
    if not all(n.isascii() and n.isdigit() and 1 <= int(n) <= MOST for n in numbers):
        raise typer.BadParameter(f"--at {text}: give numbers from 1 to {MOST}, as in 10,20")
    return sorted({int(n) for n in numbers})


def evaluate(
    train: Annotated[str, typer.Option(help="Interactions to learn from, read as `publish` does.")],
    test: Annotated[
        str | None,
        typer.Option(help="Interactions to measure on; without it, those of --hold-out."),
    ] = None,
    hold_out: Annotated[
        HoldOut,
        typer.Option(
            help="Without --test: each user's newest tenth (a random fifth if there are no times), "
            "or each user's last interaction, what is open being chosen on the one before."
        ),
    ] = HoldOut.NEWEST,
    at: Annotated[
        str, typer.Option(help="Lengths of a list at which figures are taken, as in 10,20.")
    ] = "20",
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

    Hit rate, recall and NDCG, beside popularity's, of all users and apart for known users and for
    new ones, who have no train edge and are served the popular list; with STREAMGCN_MODEL=gcn the
    RMSE too, beside that of the mean and of user and item biases. What the settings leave open is
    chosen on edges held out of the training file; where they leave nothing open, all of it is
    trained on. Several processes that torchrun starts share the users.
    """
    from trainer.device import device
    from trainer.fit.evaluate import measure_rmse
    from trainer.fit.fit import fit, fit_all
    from trainer.fit.served import measure_served, unseen
    from trainer.graph import whole
    from trainer.graph.holdout import held_out_edges, last_edges
    from trainer.graph.interactions import InteractionGraph
    from trainer.group import join
    from trainer.model import unread
    from trainer.model.model_file import written

    settings, lengths = ServingSettings.load(), places(at)
    last = hold_out == HoldOut.LAST
    if test and last:
        raise typer.BadParameter("--hold-out last is for a file without --test; leave one out")
    named = Columns(user_column, item_column, interaction_column, timestamp_column, type_column)
    options = given.options(named, columns, separator, encoding, timestamp_format, skip_invalid)
    given.end_by_interrupts()
    started = time.monotonic()
    graph = InteractionGraph(weighing=settings.weighing())
    graph.extend(_rows(train, options))
    hyperparameters = settings.hyperparameters()
    ranks = join(device(hyperparameters.device))
    if test:
        tested = InteractionGraph(graph.user_ids, graph.item_ids, weighing=graph.weighing)
        tested.extend(_rows(test, options))
        kept = graph.subset(graph.users >= 0)  # the same ids, now with the test file's
    else:
        if last and not graph.timed.any():
            raise FileError(
                f"{train} has no times by which one of a user's interactions is the last; name the "
                "column of times, or leave out --hold-out last"
            )
        liked = hyperparameters.objective != "mse"
        newest = last_edges(graph) if last else held_out_edges(graph, liked=liked)
        kept, tested = graph.subset(~newest), graph.subset(newest)
    kept, tested = (each.shared(ranks) for each in (kept, tested))
    del graph  # of which each of several processes keeps its share
    asked = unseen(tested, kept)
    if not whole.liked(asked):
        raise FileError(
            f"{test or train} leaves nothing to measure on: no positive interaction that is not in "
            "the train file too, or no user with five; give another file with --test"
        )
    held_out: dict[str, float] = {}
    timed, edges = whole.timed(kept), whole.edges(kept)
    if not timed:
        unread.warn_without_times(hyperparameters)
    with progress("training", 1) as bar:

        def advance(_: str, done: int, steps: int, __: float | None) -> None:
            bar(min(1.0, done / steps))

        hyperparameters = hyperparameters.for_graph(edges, timed)
        if hyperparameters.needs_held_out:
            chosen_on = last_edges(kept) if last else None
            fitted = fit(kept, hyperparameters, advance, newest=chosen_on)
            embeddings, hyperparameters = fitted.embeddings, fitted.settings
            held_out = fitted.metrics
        else:
            embeddings = fit_all(kept, hyperparameters, advance)
    trained = time.monotonic()
    served = measure_served(embeddings, kept, asked, lengths)
    figures = served.pop("all_users") | measure_rmse(embeddings, kept, asked)
    figures["measured_users"] = figures.pop("users")
    result: dict[str, object] = {
        "model": hyperparameters.model,
        "protocol": {
            "measured_on": f"--test {test}" if test else PROTOCOLS[hold_out][0],
            "chosen_on": PROTOCOLS[hold_out][1] if held_out else "nothing: all numbers are set",
            "ranked": "all items that the user has no train edge to",
            "at": lengths,
        },
        **_rounded(figures),
        **{name: _rounded(group) for name, group in served.items()},
        "users": whole.users(kept),
        "items": kept.n_items,
        "train_edges": edges,
        "train_edges_without_strength": ranks.total(int((kept.strengths == 0).sum())),
        "test_edges": whole.edges(tested),
        "test_edges_in_train": whole.edges(tested) - whole.edges(asked),
        "held_out": _rounded(held_out),
        "settings": asdict(hyperparameters),
        "seconds": {
            "train": round(trained - started, 1),
            "evaluate": round(time.monotonic() - trained, 1),
        },
    }
    ranks.leave()
    if not ranks.first:
        return
    typer.echo(json.dumps(result, indent=2))
    typer.echo("\n# These numbers as a file for STREAMGCN_MODEL_FILE:", err=True)
    typer.echo(written(hyperparameters), err=True, nl=False)


def _rows(file: str, options: Options) -> pa.Table:
    from trainer.graph.frame import unforgotten

    with load([file], options) as loaded:
        given.tell(loaded)
        return unforgotten(loaded.table())


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items()}
