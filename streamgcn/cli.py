"""The command `streamgcn`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, cast

import typer

from consumer.edge.store import EdgeStore, StoreError
from consumer.event.rules import ID_BYTES
from consumer.ingest.letters import Letters
from consumer.ingest.reinject import Done, reinject
from consumer.kafka.client import StreamError
from consumer.kafka.topics import group_lag, wait_for_topics
from process.errors import StreamGCNError
from process.log import configure
from process.running import Running, running
from process.settings import SettingsError, variable
from process.shutdown import Stopped, stop_on_signals
from process.text import visible
from serving.redis.contract import Recommendations
from serving.redis.errors import RedisDown
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn import demo as demonstration
from streamgcn.arguments import ForUser
from streamgcn.evaluate_file import evaluate
from streamgcn.publish_file import publish
from streamgcn.terminal import err, out, say, show
from streamgcn.up import Up


def _settings_help(*names: str) -> str:
    """Markdown list of the named fields, `x_` for all that begin so; of all if none is named."""
    groups = tuple(name for name in names if name.endswith("_"))
    lines = ["Settings (environment variables):\n"]
    for name, field in ServingSettings.model_fields.items():
        if not names or name in names or name.startswith(groups):
            default = "unset" if field.default is None else field.default
            lines.append(f"- {variable(ServingSettings, name)} ({default}): {field.description}")
    return "\n".join(lines)


def _user(user: str) -> str:
    if not 0 < len(user.encode()) <= ID_BYTES:
        raise typer.BadParameter(f"an id has 1 to {ID_BYTES} bytes")
    return user


UNKNOWN = 3  # exit code of `forget` where it cannot say whether a trace is left
USUAL_MASKS = (0o022, 0o002)  # nobody has chosen these
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
User = Annotated[
    str,
    typer.Argument(help="The user's id; behind -- if it is the name of an option.", callback=_user),
]
Reason = Annotated[str | None, typer.Option(help="Only messages whose reason has this text.")]


@app.command(epilog=_settings_help())
def up() -> None:
    """Run everything on this machine until Ctrl-C.

    Starts an embedded broker if KAFKA_BOOTSTRAP_SERVERS is unset, an embedded Redis if REDIS_URL is
    unset, then the consumer, the trainer and serving, and prints the addresses. Started again in
    the same folder, it goes on with the edges and models in ./data.
    """
    settings = _settings()
    configure(settings.log_format)
    stop = stop_on_signals()
    with suppress(Stopped), Up(os.environ, Path("data"), stop) as running:
        out.print("StreamGCN is up. Other terminals need the settings given here, and")
        for name, value in running.addresses().items():
            say(out, f"  export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        while not stop.wait(0.5):
            running.watch()
    logging.getLogger("up").info("Stopped everything that was started.")


@app.command(epilog=_settings_help("kafka_", "edge_store", "commit_", *PROCESS))
def consumer() -> None:
    """Add events from Kafka to the edge store, each exactly once."""
    with _running("consumer") as (settings, process):
        from consumer.ingest import loop as ingest

        ingest.run(settings, process)


@app.command(
    epilog=_settings_help("edge_store", "model_store", "min_edges", "retrain_", *TRAINING, *PROCESS)
)
def trainer() -> None:
    """Retrain the model on the grown graph whenever it is due."""
    with _running("trainer") as (settings, process):
        from trainer import retrain

        retrain.run(settings, process)


@app.command(
    epilog=_settings_help(
        "kafka_", "edge_store", "model_store", "redis_", "top_k", "device", *PROCESS
    )
)
def serving() -> None:
    """Keep every user's list in Redis, from each new model and after each event."""
    with _running("serving") as (settings, process):
        from serving.loop import refresh

        refresh.run(settings, process)


app.command(epilog=_settings_help("kafka_"))(publish)


@app.command(cls=ForUser, epilog=_settings_help("kafka_", "edge_", "model_store", "redis_"))
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

    settings = _settings()
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
    except StreamGCNError as error:
        say(err, f"streamgcn: {error}", style="red")
        raise typer.Exit(UNKNOWN) from None
    rows = [(p.name, p.trace or (p.unknown and f"not known: {p.unknown}") or p.remark or "none")
            for p in seen]  # fmt: skip
    show(f"{user}: before {places}", ["place", "trace"], rows)
    if any(place.trace for place in seen):
        raise typer.Exit(1)
    raise typer.Exit(UNKNOWN if any(place.unknown for place in seen) else 0)


@letters.command("list", epilog=_settings_help("kafka_"))
def list_letters(reason: Reason = None) -> None:
    """Show rejected messages that were not put back: source, reason and the beginning of each."""
    rows = []
    for letter in Letters(_settings()).letters(reason):
        value = visible(letter.value or b"", 80) or ("" if letter.whole else "(not kept)")
        rows.append((letter.source, letter.reason, visible(letter.key or b"", 80), value))
    show("", ["source", "reason", "key", "message"], rows)


@letters.command(epilog=_settings_help("kafka_"))
def re_inject(
    reason: Reason = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Messages at most.")] = None,
) -> None:
    """Publish rejected messages to the topic again, each once, after their reason was mended.

    Messages of users who were forgotten since stay where they are.
    """
    done = Done()
    for done in reinject(_settings(), reason, limit):
        say(err, f"{done.put_back} put back.")
    say(out, f"Put {done.put_back} messages back.")
    if done.of_forgotten:
        say(
            out,
            f"Left {done.of_forgotten} messages where they are: their user was forgotten since, or "
            "they cannot be read so far that it is known whose they are.",
        )


@app.command(cls=ForUser, epilog=_settings_help("redis_"))
def recommend(
    user: User,
    n: Annotated[int, typer.Option("-n", min=1, help="Items to show.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids of items to leave out, i1,i2.")] = "",
) -> None:
    """Show a user's list as it stands in Redis.

    A user without a list, or with nothing left of it, gets the popular list, and a line says so.
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
            say(err, f"{what} and no popular list yet: is serving running?")
            raise typer.Exit(1)
        say(err, f"{what}; this is the popular one.")
        left = _without(found, excluded)
    rows = [(item, f"{score:.4f}", because) for item, score, because in left[:n]]
    show(f"{user}: {found.source} {found.model}", ["item", "score", "because"], rows)


@app.command(epilog=_settings_help("edge_store", "kafka_topic"))
def new_edge_store() -> None:
    """Begin an empty edge store at EDGE_STORE, where a consumer waits for the one it had.

    A consumer begins one by itself only where its group has never stored anything.
    """
    settings = _settings()
    store = EdgeStore.begin(settings.edge_store, settings.kafka_topic)
    say(out, f"There is an edge store at {settings.edge_store}, with {store.count()} rows.")


@app.command(epilog=_settings_help("kafka_", "edge_store", "model_store", "redis_"))
def status() -> None:
    """Show the lag, the edges, the live model and which processes run."""
    settings = _settings()
    rows = []
    whole = True
    for room, group in (
        ("consumer", settings.kafka_group),
        ("serving", f"{settings.kafka_group}-serving"),
    ):
        try:
            lag, members = group_lag(settings, group)
            who = "not running" if members == 0 else f"{members or 'unknown number'} running"
            rows.append((room, f"{who}, lag {lag}"))
            whole = whole and members != 0
        except SettingsError:
            raise  # as for any other wrong setting
        except StreamError as error:
            rows.append((room, str(error)))
            whole = False
    from trainer.lifecycle.current import doing

    rows.append(("trainer", doing(Path(settings.model_store))))
    try:
        store = EdgeStore(settings.edge_store, settings.kafka_topic)
        rows.append(("edge store", f"{store.count()} rows, version {store.version}"))
    except StoreError as error:
        rows.append(("edge store", str(error)))
        whole = False
    try:
        lists = Store(settings.redis_url, settings.redis_prefix)
        model, server = lists.model(), lists.ask_server()
        if server and server.evicted and server.evicts(settings.redis_ttl_seconds is not None):
            rows.append(("Redis", server.trouble))
            whole = False
        shown = ", ".join(f"{name} {value}" for name, value in model.items())
        rows.append(("model", shown or "none yet"))
    except RedisDown as error:
        rows.append(("model", str(error)))
        whole = False
    show("StreamGCN", ["what", "state"], rows)
    raise typer.Exit(0 if whole else 1)


app.command(epilog=_settings_help(*TRAINING))(evaluate)


@app.command()
def demo() -> None:
    """Show StreamGCN at work: simulated shoppers, a training, a user's list after each event."""
    _settings()
    configure("text")
    demonstration.run(out, stop_on_signals())


def main() -> None:
    """Run the command; an expected failure is one line and exit code 1, a wrong setting 2."""
    _keep_private()
    for stream in (sys.stdout, sys.stderr):  # where the terminal's encoding lacks a character
        cast(TextIOWrapper, stream).reconfigure(errors="backslashreplace")
    try:
        for argument in sys.argv[1:]:
            _refuse_bytes(argument)
        code = app(standalone_mode=False)
    except typer.Abort:
        code = 1
    except (typer.TyperException, StreamGCNError) as error:
        text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        context = getattr(error, "ctx", None)
        if context and text:
            text += f" (see {context.command_path} --help)"
        if text:
            say(err, f"streamgcn: {text}", style="red")
        code = 2 if isinstance(error, SettingsError) else getattr(error, "exit_code", 1)
    sys.exit(code)


def _keep_private() -> None:
    """What is written is for its owner alone, unless the operator has set another umask."""
    mask = os.umask(0o077)
    if mask not in USUAL_MASKS:
        os.umask(mask)


def _refuse_bytes(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"the argument {argument} is not UTF-8") from None


def _settings() -> ServingSettings:
    return ServingSettings.load()


@contextmanager
def _running(name: str) -> Iterator[tuple[ServingSettings, Running]]:
    """Settings and frame of the process `name`; what takes long to import comes inside."""
    settings = _settings()
    with running(
        name, settings.log_format, settings.metrics_host, settings.metrics_port
    ) as process:
        yield settings, process


def _without(found: Recommendations, excluded: set[str]) -> list[tuple[str, float, str]]:
    """Items, scores and reasons of a list, without those excluded."""
    because = found.because or [""] * len(found.items)
    rows = zip(found.items, found.scores, because, strict=True)
    return [row for row in rows if row[0] not in excluded]


if __name__ == "__main__":
    main()
