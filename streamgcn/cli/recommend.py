"""The command `recommend`: a user's list as it stands in Redis."""

from __future__ import annotations

from typing import Annotated

import typer

from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn.cli.user_argument import User
from streamgcn.terminal import err, say, show


def recommend(
    user: User,
    n: Annotated[int, typer.Option("-n", min=1, help="Items to show.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids of items to leave out, i1,i2.")] = "",
) -> None:
    """Show a user's list as it stands in Redis.

    A user without a list, or with nothing left of it, gets the popular list, and a line says so.
    """
    settings = ServingSettings.load()
    store = Store(settings.redis_url, settings.redis_prefix)
    excluded = set(exclude.split(","))
    found = store.user(user)
    left = _without(found, excluded) if found else []
    if found is None or not left:
        what = f"Nothing of the list of {user} is left" if found else f"There is no list for {user}"
        found = store.popular()
        if found is None:
            say(err, f"{what} and no popular list yet: is serving running?")
            raise typer.Exit(1)
        say(err, f"{what}; this is the popular one.")
        left = _without(found, excluded)
    rows = [(item, f"{score:.4f}", because) for item, score, because in left[:n]]
    show(f"{user}: {found.source} {found.model}", ["item", "score", "because"], rows)


def _without(found: Recommendations, excluded: set[str]) -> list[tuple[str, float, str]]:
    """Items, scores and reasons of a list, without those excluded."""
    because = found.because or [""] * len(found.items)
    rows = zip(found.items, found.scores, because, strict=True)
    return [row for row in rows if row[0] not in excluded]
