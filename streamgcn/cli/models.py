"""The commands `models list`, `show`, `promote` and `rollback`: the snapshots in MODEL_STORE."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from process.text import visible
from serving.settings import ServingSettings
from streamgcn.terminal import err, out, say, show

if TYPE_CHECKING:  # torch comes with these, which no other command should wait for
    from trainer.lifecycle.manifest import Manifest
    from trainer.lifecycle.marks import Seen
    from trainer.lifecycle.snapshots import Snapshots

MEASURES = ["recall@20", "ndcg@20"]
COLUMNS = ["version", "trained", "edges", "users", "items", "seconds", *MEASURES, "verdict"]
Version = Annotated[str, typer.Argument(help="A version that `models list` shows.")]


def models(context: typer.Context) -> None:
    """Without a further word, show what `models list` shows."""
    if context.invoked_subcommand is None:
        list_models()


def list_models() -> None:
    """Show all models in MODEL_STORE, oldest first; * marks the live one.

    Recall and NDCG are of the edges that the training held out: each user's newest ones.
    """
    snapshots = _snapshots()
    marks = snapshots.marks.now()
    rows = [_row(snapshots, version, marks) for version in snapshots.versions()]
    show(f"Models in {snapshots.storage}", COLUMNS, rows, whole="version")
    if not rows:
        say(err, "No model was trained yet.")


def show_model(version: Version) -> None:
    """Show all that a model's manifest says: its measures, its settings, the verdict on it."""
    from trainer.lifecycle.manifest import SnapshotError

    snapshots = _snapshots()
    if version not in snapshots.versions():
        raise SnapshotError(
            f"there is no snapshot {version} in {snapshots.storage}; `streamgcn models list` "
            "shows all"
        )
    manifest = snapshots.manifest(version)
    show(version, ["what", "value"], list(_facts(snapshots.marks.now(), manifest)))


def promote_model(version: Version) -> None:
    """Put a model live, also one that the gate has rejected; serving takes it up within seconds.

    The model's files are checked first. The next training goes on from this model.
    """
    from trainer.lifecycle.promotion import promote

    snapshots = _snapshots()
    promote(snapshots, version)
    say(out, f"{version} is live.")
    if verdict := snapshots.manifest(version).rejected:
        say(err, f"The gate had rejected {version}: {verdict}.")


def rollback() -> None:
    """Put the model live again that was live before the live one; once more goes further back."""
    from trainer.lifecycle.promotion import roll_back

    left, live = roll_back(_snapshots())
    say(out, f"{live} is live; {left} was live before.")


def _snapshots() -> Snapshots:
    from trainer.lifecycle.snapshots import Snapshots

    snapshots = Snapshots(ServingSettings.load().model_store)
    snapshots.check()
    return snapshots


def _row(snapshots: Snapshots, version: str, marks: Seen) -> list[str]:
    from trainer.lifecycle.manifest import SnapshotError
    from trainer.lifecycle.promotion import named_in

    shown = f"* {version}" if version == named_in(marks) else f"  {version}"
    try:
        manifest = snapshots.manifest(version)
    except SnapshotError as error:
        return [shown, *[""] * (len(COLUMNS) - 2), f"damaged: {error}"]
    metrics = manifest.metrics
    return [
        shown,
        _time(manifest.trained_at),
        *(str(count) for count in (manifest.edges, manifest.users, manifest.items)),
        f"{sum(manifest.seconds.values()):.1f}",
        *(_number(metrics.get(name)) for name in MEASURES),
        _verdict(marks, manifest),
    ]


def _facts(marks: Seen, manifest: Manifest) -> Iterator[tuple[str, str]]:
    from trainer.lifecycle.promotion import named_in

    yield "live", "yes" if named_in(marks) == manifest.version else "no"
    yield "verdict", _verdict(marks, manifest)
    yield "model", manifest.model
    yield "trained", _time(manifest.trained_at)
    promoted = marks.promoted_at(manifest.version)
    when = _time(promoted) if promoted else "unknown"
    yield "live since, or last", "never" if promoted is None else when
    for name in ("edges", "users", "items", "store_version", "log", "offsets"):
        yield name, str(getattr(manifest, name))
    for name, value in manifest.metrics.items():
        yield name, _number(value)
    for name, value in manifest.seconds.items():
        yield f"seconds: {name}", f"{value:.1f}"
    for name, setting in manifest.settings.items():
        yield f"setting: {name}", "not chosen" if setting is None else visible(str(setting))


def _verdict(marks: Seen, manifest: Manifest) -> str:
    if manifest.rejected:
        return f"rejected: {manifest.rejected}"
    return "withdrawn" if marks.is_withdrawn(manifest.version) else "passed"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
