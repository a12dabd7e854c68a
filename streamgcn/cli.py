"""The command `streamgcn`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from consumer.edge.store import EdgeStore, StoreError
from consumer.ingest import dead_letters
from consumer.kafka.client import StreamError
from consumer.kafka.topics import group_lag, wait_for_topics
from process.errors import StreamGCNError
from process.log import configure
from process.settings import SettingsError, variable
from process.shutdown import stop_on_signals
from serving.settings import ServingSettings
from serving.store import Recommendations, RedisDown, Store
from streamgcn import demo as demonstration
from streamgcn import forget as forgetting
from streamgcn.embedded import Up
from streamgcn.evaluate_file import evaluate
from streamgcn.publish_file import publish
from streamgcn.terminal import err, out


def _settings_help(*names: str) -> str:
    """Markdown list of the named fields, `x_` for all that begin so; of all if none is named."""
    groups = tuple(name for name in names if name.endswith("_"))
    lines = ["Settings (environment variables):\n"]
    for name, field in ServingSettings.model_fields.items():
        if not names or name in names or name.startswith(groups):
            default = "unset" if field.default is None else field.default
            lines.append(f"- {variable(ServingSettings, name)} ({default}): {field.description}")
    return "\n".join(lines)


PROCESS = ("log_", "metrics_")
TRAINING = ("model", "loss", "embedding_dim", "layers", "epochs", "device")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Recommendations that follow every event: Kafka in, Redis out, a graph network "
    "in between. Settings are environment variables; the help of each command lists its own.",
)
letters = typer.Typer(no_args_is_help=True, help="Messages that were rejected.")
app.add_typer(letters, name="dead-letters")
Reason = Annotated[str | None, typer.Option(help="Only those whose reason contains this.")]


@app.command(epilog=_settings_help())
def up() -> None:
    """Run everything on this machine until Ctrl-C.

    Starts an embedded broker if KAFKA_BOOTSTRAP_SERVERS is unset, an embedded Redis if REDIS_URL is
    unset, then the consumer, the trainer and serving, and prints the addresses.
    """
    settings = _settings()
    configure(settings.log_format)
    stop = stop_on_signals()
    with Up(os.environ, Path("data")) as running:
        out.print("StreamGCN is up. Other terminals need the settings given here, and")
        for name, value in running.addresses().items():
            out.print(f"  export {name}={value}", highlight=False, soft_wrap=True)
        sys.stdout.flush()
        while not stop.wait(0.5):
            running.watch()
    logging.getLogger("up").info("Stopped everything that was started.")


@app.command(epilog=_settings_help("kafka_", "edge_store", "commit_", *PROCESS))
def consumer() -> None:
    """Add events from Kafka to the edge store, each exactly once."""
    from consumer.ingest import loop as ingest

    settings = _settings()
    configure(settings.log_format)
    ingest.run(settings, stop_on_signals())


@app.command(
    epilog=_settings_help("edge_store", "model_store", "min_edges", "retrain_", *TRAINING, *PROCESS)
)
def trainer() -> None:
    """Retrain the model on the grown graph whenever it is due."""
    from trainer import retrain

    settings = _settings()
    configure(settings.log_format)
    retrain.run(settings, stop_on_signals())


@app.command(
    epilog=_settings_help(
        "kafka_", "edge_store", "model_store", "redis_", "top_k", "device", *PROCESS
    )
)
def serving() -> None:
    """Keep every user's list in Redis, from each new model and after each event."""
    from serving import refresh

    settings = _settings()
    configure(settings.log_format)
    refresh.run(settings, stop_on_signals())


app.command(epilog=_settings_help("kafka_"))(publish)


@app.command(epilog=_settings_help("kafka_", "edge_", "model_store", "redis_"))
def forget(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    verify: Annotated[bool, typer.Option(help="Wait, then look into every store.")] = False,
    seconds: Annotated[float, typer.Option(help="To wait at most.", min=1)] = 120.0,
) -> None:
    """Erase a user: edges and their bytes, the model's rows of the user, the list.

    Publishes it; consumer, trainer and serving do it, as soon as they run. With --verify the exit
    code is 1 if a trace is left. Kafka itself keeps the user's messages until they expire; if they
    are read again, the user is erased again.
    """
    settings = _settings()
    configure(settings.log_format)
    wait_for_topics(settings, stop_on_signals(), logging.getLogger("forget"))
    places = forgetting.publish(settings, user)
    out.print(f"Published to {len(places)} partitions of {settings.kafka_topic}.")
    if not verify:
        return
    seen = forgetting.verify(settings, user, places, seconds)
    table = Table("place", "trace", title=f"{user}: before {places}")
    for place in seen:
        table.add_row(place.name, place.trace or "none")
    out.print(table)
    raise typer.Exit(1 if any(place.trace for place in seen) else 0)


@letters.command("list", epilog=_settings_help("kafka_"))
def list_letters(reason: Reason = None) -> None:
    """Show rejected messages that were not put back: source, reason and the beginning of each."""
    table = Table("source", "reason", "key", "message")
    for letter in dead_letters.letters(_settings(), reason):
        shown = repr((letter.value or b"")[:80])[2:-1] if letter.whole else "(too large to keep)"
        table.add_row(letter.source, letter.reason, repr(letter.key or b"")[2:-1], shown)
    out.print(table, markup=False)


@letters.command(epilog=_settings_help("kafka_"))
def re_inject(
    reason: Reason = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Messages at most.")] = None,
) -> None:
    """Publish rejected messages to the topic again, each once, after their reason was mended."""
    done = 0
    for done in dead_letters.reinject(_settings(), reason, limit):
        err.print(f"{done} put back.")
    out.print(f"Put {done} messages back.")


@app.command(epilog=_settings_help("redis_"))
def recommend(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Items to show.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids of items to leave out, i1,i2.")] = "",
) -> None:
    """Show a user's list as it stands in Redis.

    Where the user has none, or nothing of it is left, the popular list, and a line that says so.
    """
    settings = _settings()
    store = Store(settings.redis_url, settings.redis_prefix)
    excluded = set(exclude.split(","))
    found = store.user(user)
    left = _without(found, excluded) if found else []
    if found is None or not left:
        what = f"Nothing of the list of {user} is left" if found else f"There is no list for {user}"
        found = store.popular()
        if found is None:
            err.print(f"{what} and no popular list yet: is serving running?", markup=False)
            raise typer.Exit(1)
        err.print(f"{what}; this is the popular one.", markup=False)
        left = _without(found, excluded)
    table = Table("item", "score", "because", title=f"{escape(user)}: {found.source} {found.model}")
    for item, score, because in left[:n]:
        table.add_row(escape(item), f"{score:.4f}", escape(because))
    out.print(table)


@app.command(epilog=_settings_help("kafka_", "edge_store", "redis_"))
def status() -> None:
    """Show lag, edges, the live model and who is there."""
    settings = _settings()
    table = Table("what", "state", title="StreamGCN")
    whole = True
    for room, group in (
        ("consumer", settings.kafka_group),
        ("serving", f"{settings.kafka_group}-serving"),
    ):
        try:
            lag, members = group_lag(settings, group)
            who = "not running" if members == 0 else f"{members or 'unknown number'} running"
            table.add_row(room, f"{who}, lag {lag}")
            whole = whole and members != 0
        except StreamError as error:
            table.add_row(room, str(error))
            whole = False
    try:
        store = EdgeStore(settings.edge_store, settings.kafka_topic)
        table.add_row("edge store", f"{store.count()} rows, version {store.version}")
    except StoreError as error:
        table.add_row("edge store", str(error))
        whole = False
    try:
        model = Store(settings.redis_url, settings.redis_prefix).model()
        shown = ", ".join(f"{name} {value}" for name, value in model.items())
        table.add_row("model", shown or "none yet")
    except RedisDown as error:
        table.add_row("model", str(error))
        whole = False
    out.print(table)
    raise typer.Exit(0 if whole else 1)


app.command(epilog=_settings_help(*TRAINING))(evaluate)


@app.command()
def demo() -> None:
    """See it work: simulated shoppers, a training, and a new user's list after each event."""
    _settings()
    configure("text")
    demonstration.run(out, stop_on_signals())


def main() -> None:
    """Run the command; an expected failure is one line and exit code 1, a wrong setting 2."""
    try:
        app()
    except SettingsError as error:
        err.print(f"streamgcn: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
    except StreamGCNError as error:
        err.print(f"streamgcn: {error}", style="red", highlight=False, soft_wrap=True)
        sys.exit(1)


def _settings() -> ServingSettings:
    return ServingSettings.load()


def _without(found: Recommendations, excluded: set[str]) -> list[tuple[str, float, str]]:
    """Items, scores and reasons of a list, without those excluded."""
    because = found.because or [""] * len(found.items)
    rows = zip(found.items, found.scores, because, strict=True)
    return [row for row in rows if row[0] not in excluded]


if __name__ == "__main__":
    main()
