"""The command `streamgcn`: each command in the order of the help, and how a command ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, cast

import typer

from process.errors import StreamGCNError
from process.priority import sleep_while_waiting
from process.settings import SettingsError, is_set
from streamgcn.cli import letters, models, processes
from streamgcn.cli.backup import backup, restore
from streamgcn.cli.evaluate import evaluate
from streamgcn.cli.forget import forget
from streamgcn.cli.page import page
from streamgcn.cli.publish import publish
from streamgcn.cli.recommend import recommend
from streamgcn.cli.replay import replay
from streamgcn.cli.settings_help import GRAPH, PROCESS, TRAINING, settings_help
from streamgcn.cli.status import new_edge_store, status
from streamgcn.cli.user_argument import ForUser
from streamgcn.terminal import err, say
from streamgcn.up.folder import addresses

USUAL_MASKS = (0o022, 0o002)  # nobody has chosen these
STARTED = ("up", "demo", "consumer", "trainer", "serving")  # which do not look for an `up`
KAFKA, REDIS = ("kafka_",), ("redis_",)
STORES = ("edge_store", "model_store")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Recommendations that follow every event: Kafka in, Redis out, a graph network "
    "in between. Settings are environment variables; the help of each command lists its own.",
)


def _add(
    command: Callable[..., None], *settings: str, group: typer.Typer = app, **how: Any
) -> None:
    """Add a command whose help lists `settings`, as settings_help takes them."""
    group.command(epilog=settings_help(*settings), **how)(command)


_add(processes.up)
_add(processes.consumer, *KAFKA, "edge_store", "commit_", "retention_days", *PROCESS)
_add(
    processes.trainer,
    *("kafka_topic", *STORES, "min_edges", "retrain_", *GRAPH, *TRAINING, *PROCESS),
)
_add(
    processes.serving,
    *(*KAFKA, *STORES, *REDIS, *GRAPH, "top_k", "device", *PROCESS),
)
_add(publish, *KAFKA)
_add(forget, *KAFKA, "edge_store", "model_store", *REDIS, cls=ForUser)
_add(recommend, *REDIS, cls=ForUser)
_add(new_edge_store, "edge_store", "kafka_topic")
_add(backup, *STORES, "kafka_topic")
_add(restore, *STORES, "kafka_topic")
_add(status, *KAFKA, *STORES, *REDIS)
_add(evaluate, *GRAPH, *TRAINING)
_add(replay, *GRAPH, *TRAINING, "top_k")
_add(page, *KAFKA, *STORES, *REDIS, "metrics_")
app.command()(processes.demo)

dead_letters = typer.Typer(no_args_is_help=True, help="Messages that were rejected.")
app.add_typer(dead_letters, name="dead-letters")
_add(letters.list_letters, *KAFKA, group=dead_letters, name="list")
_add(letters.re_inject, *KAFKA, group=dead_letters)

of_models = typer.Typer(
    callback=models.models, invoke_without_command=True,
    help="The trained models: list (which is also what `models` alone does), show, choose.",
)  # fmt: skip
app.add_typer(of_models, name="models")
_add(models.list_models, "model_store", group=of_models, name="list")
_add(models.show_model, "model_store", group=of_models, name="show")
_add(models.promote_model, "model_store", group=of_models, name="promote")
_add(models.rollback, "model_store", group=of_models)


def main() -> None:
    """Run the command; an expected failure is one line and exit code 1, a wrong setting 2."""
    _keep_private()
    sleep_while_waiting()
    for stream in (sys.stdout, sys.stderr):  # where the terminal's encoding lacks a character
        cast(TextIOWrapper, stream).reconfigure(errors="backslashreplace")
    try:
        for argument in sys.argv[1:]:
            _refuse_bytes(argument)
        if sys.argv[1:2] and sys.argv[1] not in STARTED:
            _find_up()
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


def _find_up() -> None:
    """Take the settings of the `up` that runs in this folder, unless any of them is set."""
    found = addresses(processes.FOLDER)
    if not any(is_set(os.environ, name) for name in found):
        os.environ.update(found)


def _refuse_bytes(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"the argument {argument} is not UTF-8") from None
