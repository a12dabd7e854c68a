"""The command `forget`: one user out of every store."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from consumer.kafka.topics import wait_for_topics
from process.errors import StreamGCNError
from process.log import configure
from process.settings import SettingsError
from process.shutdown import Stopped, stop_on_signals
from serving.settings import ServingSettings
from streamgcn.cli.user_argument import User
from streamgcn.terminal import err, out, say, show

UNKNOWN = 3  # exit code where the command cannot say whether a trace is left


def forget(
    user: User,
    verify: Annotated[
        bool, typer.Option(help="Wait for the erasure, then look for traces.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Longest wait of --verify.", min=1)] = 120.0,
) -> None:
    """Erase a user: edges and their bytes, the model's rows of the user, the list.

    The command publishes a `forget`; consumer, trainer and serving erase once they run. With
    --verify the exit code is 0 if no trace is left, 1 if one is, and 3 if that is not known,
    because the erasure has not been read yet or a place cannot be reached. Without --verify 3 says
    that nothing was published.
    Kafka itself keeps the user's messages until they expire; if they are read again, the user is
    erased again.
    """
    from streamgcn import forget as forgetting

    settings = ServingSettings.load()
    configure(settings.log_format)
    try:
        forgetting.refuse_another_topic(settings)
        wait_for_topics(settings, stop_on_signals(), logging.getLogger("forget"), "WRITE")
        places = forgetting.publish(settings, user)
        out.print(f"Published to {len(places)} partitions of {settings.kafka_topic}.")
        if not verify:
            return
        seen = forgetting.Search(settings, user, places).verify(seconds)
    except SettingsError:
        raise
    except Stopped:
        raise typer.Exit(UNKNOWN) from None
    except StreamGCNError as error:
        say(err, f"streamgcn: {error}", style="red")
        raise typer.Exit(UNKNOWN) from None
    rows = [(p.name, p.trace or (p.unknown and f"not known: {p.unknown}") or p.remark or "none")
            for p in seen]  # fmt: skip
    show(f"{user}: before {places}", ["place", "trace"], rows)
    if any(place.trace for place in seen):
        raise typer.Exit(1)
    raise typer.Exit(UNKNOWN if any(place.unknown for place in seen) else 0)
