"""The command `replay`: what users would have read at each moment of a log, measured."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from process.log import configure
from serving.settings import ServingSettings
from streamgcn.cli import file_options as given
from streamgcn.files.columns import Columns
from streamgcn.files.load import load
from streamgcn.files.source import FileError
from streamgcn.terminal import progress

FEWEST = 100  # events before the first training
UNTIMED = 946_684_800_000  # epoch milliseconds, of all events of a file without times: of no use


def replay(
    file: Annotated[str, typer.Argument(help="Interactions with times, read as `publish` does.")],
    retrain_every: Annotated[
        int | None,
        typer.Option(help="Events between two trainings. If not given: a tenth of all.", min=1),
    ] = None,
    begin: Annotated[
        int | None,
        typer.Option(
            "--from",
            help="Events that are only learned, before the first training. If not given: a tenth.",
            min=FEWEST,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--plot", help="PNG file for a plot of NDCG over the events."),
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
    """Play a file's events again, each predicted, then learned; prints JSON.

    Each event is looked for in the first 20 items of the list that its user would have read just
    before it: with refresh and retrains (what StreamGCN does), with retrains alone (a batch
    recommender), with refresh of the first model alone, and in the popular list. docs/replay.md
    says what is counted. Nothing is sent to Kafka or Redis.
    """
    from streamgcn.replay.plot import check_plot, plot
    from streamgcn.replay.run import Replay
    from streamgcn.replay.stream import Stream

    settings = ServingSettings.load()
    configure(settings.log_format)
    if picture:
        check_plot(picture)
    named = Columns(user_column, item_column, interaction_column, timestamp_column, type_column)
    options = given.options(named, columns, separator, encoding, timestamp_format, skip_invalid)
    given.end_by_interrupts()
    with load([file], options) as loaded:
        given.tell(loaded)
        blocks = loaded.blocks(int(time.time() * 1000) if loaded.events.timed else UNTIMED)
        stream = Stream(pa.concat_tables(blocks))
    n = len(stream)
    tenth = -(-n // 10)  # rounded up: else the last training is for the few events that are over
    first = begin or max(FEWEST, tenth)
    if first >= n:
        raise FileError(
            f"{file} has {n} events, and {first} are learned before any is predicted; give a "
            "larger file or a smaller --from"
        )
    hyperparameters = settings.hyperparameters()
    with progress("replaying", n) as bar:
        run = Replay(stream, settings, hyperparameters, first, retrain_every or tenth)
        result = run.run(bar)
    if picture:
        plot(result, picture)
    typer.echo(json.dumps(result, indent=2))
