"""Options of the commands that read files of interactions."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from streamgcn.files.columns import Columns
from streamgcn.files.load import Loaded
from streamgcn.files.options import Options
from streamgcn.terminal import err, say

UserColumn = Annotated[str | None, typer.Option(help="Column of the users' ids, as in user_id.")]
ItemColumn = Annotated[str | None, typer.Option(help="Column of the items' ids, as in item_id.")]
InteractionColumn = Annotated[
    str | None, typer.Option(help="Column of ratings or counts, as in interaction; '' for none.")
]
TimestampColumn = Annotated[
    str | None, typer.Option(help="Column of times, as in timestamp; '' for none.")
]
TypeColumn = Annotated[
    str | None, typer.Option(help="Column of the events' types, as in type; '' for none.")
]
Names = Annotated[
    str,
    typer.Option(
        "--columns",
        help="The names of all columns in order, as in user,item,interaction,timestamp, of a file "
        "without a header.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(help="Text between two fields, or tab or space. If not given, it is found."),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of the text. If not given: UTF-8, a marked UTF-16, or latin-1."),
]
TimestampFormat = Annotated[
    str | None,
    typer.Option(help="Form of the times, as in '%d/%m/%Y %H:%M' (Python's strptime)."),
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out rows that are no events, and count them.")
]


def options(
    columns: Columns,
    names: str,
    separator: str | None,
    encoding: str | None,
    timestamp_format: str | None,
    skip_invalid: bool,
) -> Options:
    """The options as they were given on the command line."""
    listed = tuple(name.strip() for name in names.split(",")) if names else ()
    return Options(columns, listed, separator, encoding, timestamp_format, skip_invalid)


def end_by_interrupts() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that no temporary folder is left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def tell(loaded: Loaded) -> None:
    """Say on stderr what was read from where, and end the command if rows are wrong.

    Raises:
        FileError: there are wrong rows, which are not to be left out.
    """
    for note in loaded.notes:
        say(err, note)
    loaded.refuse_wrong()
