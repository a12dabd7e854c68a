"""Models that are copied from one MODEL_STORE to another, of whatever kinds the two are."""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from trainer.lifecycle import files
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.marks import LIVE, Changing, Seen
from trainer.lifecycle.promotion import before
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import MANIFEST, Storage, Target, Write

SUFFIXES = (".safetensors", ".parquet", ".json")  # of what is a snapshot's own; marks have none
TRIES = 3  # a model may be pruned while it is copied


def copy_models(source: Snapshots, target: Snapshots) -> list[str]:
    """Copy the live model and those that were live before it.

    Returns:
        The versions, the live one first.

    Raises:
        SnapshotError: the source cannot be read, or changes too fast.
        OSError: the target cannot be written.
    """
    for _ in range(TRIES):
        if not isinstance(source.storage, Folder):
            at = _copied(source, target, source.marks.now())
        elif source.storage.root.is_dir():
            at = source.marks.change(partial(_copied, source, target))  # so none is pruned
        else:
            at = {}
        if at:
            target.marks.change(partial(_mark, at))
        if at is not None:
            return list(at)
    raise SnapshotError(
        f"the models in {source.storage} change too fast to be copied, or the live one is missing"
    )


def is_empty(target: Snapshots) -> bool:
    """Whether there is no model at a place yet.

    Raises:
        SnapshotError, OSError: it cannot be read.
    """
    return not target.every_version() and target.storage.look(LIVE, 1) is None


def remove_models(target: Snapshots, versions: list[str]) -> None:
    """Delete copies that are not to be used, as far as that can be done."""
    with suppress(OSError):
        target.storage.delete(LIVE)
        for version in versions:
            target.storage.delete_folder(version)


def _copied(source: Snapshots, target: Snapshots, marks: Seen) -> dict[str, int | None] | None:
    """Version -> when it went live last, of what was copied; None where one was gone meanwhile."""
    live = marks.live()
    versions = [live, *before(source, marks, live)] if live else []
    try:
        for version in versions:
            _copy(source.storage, target.storage, version)
    except FileNotFoundError:
        remove_models(target, versions)
        return None
    return {version: marks.promoted_at(version) for version in versions}


def _mark(at: dict[str, int | None], marks: Changing) -> None:
    for version in reversed(at):
        marks.promote(version, at[version])


def _copy(source: Storage, target: Storage, version: str) -> None:
    names = [name for name in source.states(version) if name.endswith(SUFFIXES)]
    if MANIFEST not in names:
        raise FileNotFoundError(source.place(f"{version}/{MANIFEST}"))
    names.remove(MANIFEST)
    made: dict[str, Write] = {name: partial(_write, source, f"{version}/{name}") for name in names}
    try:
        target.add(version, made)
        content = source.file(f"{version}/{MANIFEST}").content
        target.finish(version, MANIFEST, _bytes(content), names)
    except BaseException:
        target.abandon(version)
        raise


def _write(source: Storage, name: str, target: Target) -> None:
    content = source.file(name).content
    if isinstance(content, Path) and isinstance(target, Path):
        shutil.copyfile(content, target)
    else:
        files.write_bytes(target, _bytes(content))


def _bytes(content: Path | bytes) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content
