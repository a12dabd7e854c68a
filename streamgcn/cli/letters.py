"""The commands `dead-letters list` and `dead-letters re-inject`."""

from __future__ import annotations

from typing import Annotated

import typer

from consumer.ingest.letters import Letters
from consumer.ingest.reinject import Done, reinject
from process.text import visible
from serving.settings import ServingSettings
from streamgcn.terminal import err, out, say, show

Reason = Annotated[str | None, typer.Option(help="Only messages whose reason has this text.")]


def list_letters(reason: Reason = None) -> None:
    """Show rejected messages that were not put back: source, reason and the beginning of each."""
    rows = []
    for letter in Letters(ServingSettings.load()).letters(reason):
        value = visible(letter.value or b"", 80) or ("" if letter.whole else "(not kept)")
        rows.append((letter.source, letter.reason, visible(letter.key or b"", 80), value))
    show("", ["source", "reason", "key", "message"], rows)


def re_inject(
    reason: Reason = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Messages at most.")] = None,
) -> None:
    """Publish rejected messages to the topic again, each once, after their reason was mended.

    Messages of users who were forgotten since stay where they are, and so do messages of which the
    dead letter does not have everything.
    """
    done = Done()
    for done in reinject(ServingSettings.load(), reason, limit):
        say(err, f"{done.put_back} put back.")
    say(out, f"Put {done.put_back} messages back.")
    if done.of_forgotten:
        say(
            out,
            f"Left {done.of_forgotten} messages where they are: their user was forgotten since, or "
            "they cannot be read so far that it is known whose they are.",
        )
    if done.truncated:
        say(
            out,
            f"Left {done.truncated} messages where they are: their dead letters have the header "
            "truncated, so not all of the message was kept; publish them again from their origin.",
        )
