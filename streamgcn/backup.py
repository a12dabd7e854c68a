"""A backup of the edge store and of the models that are or were live, and the way back.

<DIR>/edges         the edge store at one moment
<DIR>/models        the live model and those that were live before
<DIR>/backup.json   written last: a folder without it is no backup
<DIR>/unfinished    there while the backup is made, or where it was killed

The models are copied first, so the edges are never behind what a model was trained on.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from consumer import path
from consumer.edge import copy as edges
from process import atomic
from process.errors import StreamGCNError
from serving.settings import ServingSettings
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.marks import LIVE
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import StoreTrouble
from trainer.lifecycle.transfer import copy_models, is_empty, remove_models

ABOUT = "backup.json"
EDGES, MODELS = "edges", "models"
FORMAT = 1
UNFINISHED = "unfinished"  # a file that is in the folder while the backup is made
DRAFT = ".restoring"
EMPTY_ONLY = "a backup is restored to an empty place only"
OF_THE_DISK = "lost+found"  # which a new disk has in its root


class BackupError(StreamGCNError):
    """A backup cannot be made, or is none, or the place to restore to is not empty."""


class About(msgspec.Struct):
    """What a backup holds."""

    topic: str
    made_at: str  # RFC 3339
    rows: int
    models: list[str]  # versions, the live one first
    format: int = FORMAT


def backup(settings: ServingSettings, folder: Path) -> About:
    """Copy the edge store and the models into an empty or missing folder, while all runs.

    A backup that fails removes what it has made, so that it can be repeated.

    Raises:
        BackupError, StoreError, SnapshotError, SettingsError: the text says what is wrong.
    """
    folder = folder.absolute()  # a folder named "file:" is no URI
    path.check(str(folder / EDGES), f"the backup folder {str(folder)!r}")
    snapshots = Snapshots(settings.model_store)
    snapshots.check()
    with ExitStack() as undo:
        try:
            _occupy(folder, undo)
            for name in (ABOUT, EDGES, MODELS):
                undo.callback(_delete, folder / name)
            (folder / MODELS).mkdir(mode=0o700)
            models = copy_models(snapshots, Snapshots(str(folder / MODELS)))
            rows = edges.copy(settings.edge_store, folder / EDGES)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            about = About(settings.kafka_topic, now, rows, models)
            atomic.write(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about)))
            (folder / UNFINISHED).unlink()
            atomic.sync(folder)
            atomic.sync(folder.parent)
        except OSError as error:
            raise BackupError(f"cannot write the backup {folder}: {error}") from error
        undo.pop_all()
    return about


def restore(settings: ServingSettings, folder: Path) -> About:
    """Put a backup where EDGE_STORE and MODEL_STORE are, both of which must be empty or missing.

    What goes to a folder is copied beside its place first, and the edges come last. A restore that
    fails removes what it has made, so that it can be repeated.

    Raises:
        BackupError: the folder is no whole backup, is of another topic, a place is not empty, or
            the disk refuses.
        StoreError, SettingsError: the object store of the edges cannot be written.
    """
    folder = folder.absolute()
    about = _about(folder)
    if about.topic != settings.kafka_topic:
        raise BackupError(
            f"{folder} is of topic {about.topic}, and KAFKA_TOPIC is {settings.kafka_topic}: set "
            f"KAFKA_TOPIC={about.topic}"
        )
    places = {}
    if of_edges := edges.local(settings.edge_store):
        places[EDGES] = of_edges
    elif not edges.is_empty(settings.edge_store):
        raise BackupError(f"{settings.edge_store} is not empty; {EMPTY_ONLY}")
    snapshots = Snapshots(settings.model_store)
    if isinstance(snapshots.storage, Folder):
        places[MODELS] = snapshots.storage.root
    else:
        _refuse_filled_bucket(snapshots)
    for place in places.values():
        _refuse_filled(place, EMPTY_ONLY, besides=DRAFT)
    with ExitStack() as undo:
        try:
            for name, place in places.items():
                _make(place.parent, undo)
                shutil.rmtree(_draft(place), ignore_errors=True)
                undo.callback(shutil.rmtree, _draft(place), ignore_errors=True)
                _copy(folder / name, _draft(place))
            for place in places.values():
                _put_in_place(_draft(place), place, undo)
            if MODELS not in places:
                undo.callback(remove_models, snapshots, about.models)
                copy_models(Snapshots(str(folder / MODELS)), snapshots)
            if EDGES not in places:
                edges.put(folder / EDGES, settings.edge_store, undo.callback)
        except StoreTrouble as error:
            raise BackupError(f"cannot restore {folder} to {snapshots.storage}: {error}") from error
        except OSError as error:
            both = f"{settings.edge_store} and {settings.model_store}"
            raise BackupError(f"cannot restore {folder} to {both}: {error}") from error
        undo.pop_all()
    return about


def _occupy(folder: Path, undo: ExitStack) -> None:
    """Make the folder if it is missing, and this backup's alone.

    Raises:
        BackupError: there is something in it, or another backup is being made there.
        OSError: the disk refuses.
    """
    advice = "give an empty or a new folder"
    _refuse_unfinished(folder)
    _refuse_filled(folder, advice)
    _make(folder, undo)
    try:
        (folder / UNFINISHED).touch(exist_ok=False)
    except FileExistsError:  # another backup was quicker
        _refuse_unfinished(folder)
        raise
    undo.callback(_delete, folder / UNFINISHED)
    _refuse_filled(folder, advice, besides=UNFINISHED)  # another backup may have begun and ended


def _make(folder: Path, undo: ExitStack) -> None:
    """Make a folder, and those above it, as far as they are missing.

    Raises:
        OSError: the disk refuses.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700 if each == folder else 0o777)
            undo.callback(_delete_empty, each)


def _refuse_unfinished(folder: Path) -> None:
    if (folder / UNFINISHED).exists():
        raise BackupError(
            f"{folder} has a backup that did not end, or is being made: if no backup runs, delete "
            "the folder and run this command again"
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, and wait until the copy is on the disk."""
    shutil.copytree(source, target)
    for copied in (*target.rglob("*"), target):
        atomic.sync(copied)


def _draft(place: Path) -> Path:
    """Where a copy is made that is to be put at the place: on the same disk."""
    if place.is_mount():
        return place / DRAFT
    return place.with_name(f".{place.name}{DRAFT}")


def _put_in_place(draft: Path, place: Path, undo: ExitStack) -> None:
    """Make the copy what the place is; where a disk is mounted there, what the place holds."""
    if not place.is_mount():
        if place.is_dir():
            place.rmdir()
        draft.rename(place)
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        atomic.sync(place.parent)
        return
    # What tells a reader that a table or a model is there comes last, and is undone first.
    for part in sorted(draft.iterdir(), key=lambda part: part.name in (edges.LOG, LIVE)):
        undo.callback(_delete, part.rename(place / part.name))
    draft.rmdir()
    atomic.sync(place)


def _delete(what: Path) -> None:
    """Delete a file or a folder, as far as that can be done."""
    if what.is_dir():
        shutil.rmtree(what, ignore_errors=True)
        return
    with suppress(OSError):
        what.unlink(missing_ok=True)


def _delete_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _about(folder: Path) -> About:
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(f"{folder} is no whole backup: {ABOUT}: {error}") from error
    if about.format > FORMAT:
        raise BackupError(f"{folder} was made by a later version of StreamGCN: install that one")
    return about


def _refuse_filled_bucket(snapshots: Snapshots) -> None:
    snapshots.check()
    if not is_empty(snapshots):
        raise BackupError(
            f"{snapshots.storage} has models; a backup is restored to an empty place only"
        )


def _refuse_filled(folder: Path, advice: str, besides: str = "") -> None:
    try:
        passed = {besides, OF_THE_DISK}
        filled = folder.exists() and any(each.name not in passed for each in folder.iterdir())
    except OSError as error:
        raise BackupError(f"{folder} cannot be used: {error}") from error
    if filled:
        raise BackupError(f"{folder} is not empty; {advice}")
