"""Arguments of the commands that read files of interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="CSV, Parquet or JSON lines.", exists=True)]
UserColumn = Annotated[str, typer.Option(help="Column with the user's id.")]
ItemColumn = Annotated[str, typer.Option(help="Column with the item's id.")]
InteractionColumn = Annotated[str, typer.Option(help="Column with the rating or count; may lack.")]
TimestampColumn = Annotated[
    str, typer.Option(help="Column with RFC 3339, epoch seconds or milliseconds; may lack.")
]
TypeColumn = Annotated[str, typer.Option(help="Column with the event's type; may lack.")]
