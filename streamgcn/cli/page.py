"""The command `page`."""

from __future__ import annotations

from typing import Annotated

import typer

from process.log import configure
from process.shutdown import stop_on_signals
from serving.settings import ServingSettings

PORT = 8100


def page(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any free one.")] = PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on. The page has no password.")
    ] = "127.0.0.1",
) -> None:
    """Serve a page for a browser: figures, training, models; a user's list and why.

    The page shows what it can reach, and says what is missing. With STREAMGCN_METRICS_PORT it reads
    the figures of consumer, trainer and serving at this port and the next two, as `up` gives them.
    """
    from streamgcn.page.server import serve

    settings = ServingSettings.load()
    configure(settings.log_format)
    serve(settings, host, port, stop_on_signals())
