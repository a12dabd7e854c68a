"""A copy of one version of the edge store, made while the store is written, read and tidied."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from consumer.edge import path
from consumer.edge.table import StoreError, Table
from process import atomic
from process.settings import SettingsError

LOG = "_delta_log"
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
TRIES = 10  # an erasure or a tidying may delete files of the version that is copied


def local(uri: str) -> Path:
    """The folder of an edge store.

    Raises:
        SettingsError: the store is in an object store, or the path cannot hold a table.
    """
    path.check(uri)
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise SettingsError(
            f"EDGE_STORE={uri} is refused: only a folder can be copied; copy an object store by "
            "what it has for that, such as versions"
        )
    return Path(parts.path)


def copy(uri: str, target: Path) -> int:
    """Copy the newest version into an empty or missing folder; returns its number of rows.

    The files of a version never change, so a copy of all of them, and of the log up to the version,
    is the store at one moment: its rows, and the offsets that belong to them.

    Raises:
        SettingsError: the store is in an object store, or a path cannot hold a table.
        StoreError: it cannot be read, or the copy cannot be written.
    """
    source = local(uri)
    for left in reversed(range(TRIES)):
        table = Table(uri)
        try:
            _copy(table, source, target)
            return _checked(table, target)
        except FileNotFoundError as error:
            if not left:
                raise StoreError(f"edge store {uri} changes too fast to be copied") from error
            shutil.rmtree(target, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"edge store {uri} cannot be copied to {target}: {error}") from error
    raise AssertionError  # the last try returns or raises


def _copy(table: Table, source: Path, target: Path) -> None:
    (target / LOG).mkdir(parents=True, exist_ok=True)
    with table.errors():
        files = pa.table(table.delta.get_add_actions())["path"].to_pylist()
    for name in [unquote(file) for file in files] + list(_log_files(source, table.version)):
        copied = target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copied)
        atomic.sync(copied)
    atomic.sync(target / LOG)
    atomic.sync(target)


def _log_files(source: Path, version: int) -> Iterator[str]:
    """The newest checkpoint up to the version, and the commits behind it."""
    names = sorted(each.name for each in (source / LOG).iterdir())
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
