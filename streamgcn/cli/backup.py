"""The commands `backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.settings import ServingSettings
from streamgcn.terminal import out, say


def backup(folder: Annotated[Path, typer.Argument(help="An empty or a new folder.")]) -> None:
    """Copy the edge store and the live models into a folder, while everything runs.

    The copy is the edge store at one moment, with the offsets that belong to its rows, and the
    models that are or were live. Redis needs no backup: serving writes all lists again.
    """
    from streamgcn import backup as backups

    about = backups.backup(ServingSettings.load(), folder)
    live = f"the live model {about.models[0]}" if about.models else "no model"
    older = f" and {len(about.models) - 1} that were live" if len(about.models) > 1 else ""
    say(out, f"{folder} has {about.rows} rows of topic {about.topic}, {live}{older}.")


def restore(folder: Annotated[Path, typer.Argument(help="What `backup` has made.")]) -> None:
    """Put a backup where EDGE_STORE and MODEL_STORE are; both must be empty or missing.

    Start the processes afterwards. Where the topic is still there, the consumer goes on at the
    stored offsets; where it was created anew, at the topic's start, and what is stored stays.
    """
    from streamgcn import backup as backups

    settings = ServingSettings.load()
    about = backups.restore(settings, folder)
    say(
        out,
        f"Restored {about.rows} rows to {settings.edge_store} and {len(about.models)} models to "
        f"{settings.model_store}, as of {about.made_at}; start the processes now.",
    )
