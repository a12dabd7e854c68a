"""A copy of one version of the edge store, made while all goes on, and the way back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from obstore.exceptions import BaseError
from pyarrow.fs import FileSelector, PyFileSystem

from consumer import path
from consumer.edge import answers, bucket
from consumer.edge.table import StoreError, Table, errors, place
from process import atomic

LOG = "_delta_log"
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
TRIES = 10  # an erasure or a tidying may delete files of the version that is copied


def local(uri: str) -> Path | None:
    """The folder of an edge store; None where it is in an object store.

    Raises:
        SettingsError: the place cannot hold a table.
    """
    path.check(uri)
    return path.folder(uri)


def copy(uri: str, target: Path) -> int:
    """Copy the newest version into an empty or missing folder; returns its number of rows.

    The files of a version never change, so a copy of all of them, and of the log up to the version,
    is the store at one moment: its rows, and the offsets that belong to them.

    Raises:
        SettingsError: the place cannot hold a table, or an object store does not let this in.
        StoreError: it cannot be read, or the copy cannot be written.
    """
    path.check(uri)
    for left in reversed(range(TRIES)):
        table = Table(uri)
        try:
            _copy(table, target)
            return _checked(table, target)
        except FileNotFoundError as error:
            if not left:
                raise StoreError(f"edge store {uri} changes too fast to be copied") from error
            shutil.rmtree(target, ignore_errors=True)
        except OSError as error:
            text = answers.plain(error)
            raise StoreError(f"edge store {uri} cannot be copied to {target}: {text}") from error
    raise AssertionError  # the last try returns or raises


def is_empty(uri: str) -> bool:
    """Whether nothing is at a place in an object store.

    Raises:
        StoreError: the place cannot be reached.
    """
    with errors(uri):
        return not place(uri).get_file_info(FileSelector(""))


def put(source: Path, uri: str, undo: Callable[[Callable[[], None]], object]) -> None:
    """Put a copy to an empty place in an object store.

    Args:
        undo: is given what takes back each step.

    Raises:
        StoreError: the place cannot be written.
        OSError: the copy cannot be read.
    """
    names = [str(each.relative_to(source)) for each in source.rglob("*") if each.is_file()]
    # What a table begins with comes last: without it there is no table for a reader or a writer.
    names.sort(key=lambda name: (name.startswith(LOG), name), reverse=True)
    names.sort(key=lambda name: name.startswith(LOG))
    for name in names:
        undo(partial(_delete, uri, name))
        with errors(uri):
            bucket.put(uri, name, source / name)


def _delete(uri: str, name: str) -> None:
    with suppress(BaseError):
        bucket.delete(uri, name)


def _copy(table: Table, target: Path) -> None:
    source = table.place()
    (target / LOG).mkdir(parents=True, exist_ok=True)
    with table.errors():
        names = [
            unquote(file) for file in pa.table(table.delta.get_add_actions())["path"].to_pylist()
        ]
        names += _log_files(source, table.version)
    for name in names:
        copied = target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        with copied.open("wb") as written, source.open_input_stream(name) as read:
            shutil.copyfileobj(read, written)
        atomic.sync(copied)
    atomic.sync(target / LOG)
    atomic.sync(target)


def _log_files(source: PyFileSystem, version: int) -> Iterator[str]:
    """The newest checkpoint up to the version, and the commits behind it."""
    names = sorted(each.base_name for each in source.get_file_info(FileSelector(LOG)))
    checkpoints = [
        name for name in names if (f := CHECKPOINT.fullmatch(name)) and int(f[1]) <= version
    ]
    first = 0
    if checkpoints:
        first = int(checkpoints[-1][:20]) + 1
        yield f"{LOG}/{checkpoints[-1]}"
    yield from (f"{LOG}/{number:020}.json" for number in range(first, version + 1))


def _checked(table: Table, target: Path) -> int:
    """The number of rows, if the copy is readable and the same version of the same table."""
    made = Table(str(target))
    if (made.id, made.version) != (table.id, table.version):
        raise StoreError(f"the copy in {target} is not what was copied")
    with made.errors():
        return int(made.delta.count())
