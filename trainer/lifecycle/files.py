"""The files of a snapshot: each says which version it belongs to and carries checksums.

So a file that was damaged, or put there from another snapshot, is told from a right one although
it is whole. Files of the first version say neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.lifecycle.manifest import SnapshotError

VERSION, CHECKSUM = "version", "crc32c"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], version: str) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError, SafetensorError: the disk refuses.
    """
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, {VERSION: version, CHECKSUM: str(_checksum(whole))})


def read_tensors(path: Path, version: str) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        SnapshotError: it is of another snapshot, or not what was written.
        OSError, SafetensorError: it cannot be read.
    """
    with safe_open(regular(path), "pt") as file:
        told = file.metadata() or {}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_version(path, told.get(VERSION), version)
    if CHECKSUM in told and told[CHECKSUM] != str(_checksum(found)):
        raise SnapshotError(f"{path} was changed since it was written: its checksum differs")
    return found


def write_ids(path: Path, column: str, ids: pa.Array, version: str) -> None:
    """Write ids as Parquet.

    Raises:
        OSError, ArrowException: the disk refuses.
    """
    table = pa.table({column: ids}).replace_schema_metadata({VERSION: version})
    pq.write_table(table, path, write_page_checksum=True)


def read_ids(path: Path, version: str) -> pa.Table:
    """A table of ids, all of them UTF-8.

    Raises:
        SnapshotError: it is of another snapshot.
        OSError, ArrowException: it cannot be read, or is not what was written.
    """
    table = pq.read_table(regular(path), page_checksum_verification=True)
    told = (table.schema.metadata or {}).get(VERSION.encode())
    _check_version(path, told.decode(errors="replace") if told else None, version)
    table.validate(full=True)
    return table


def regular(path: Path) -> Path:
    """The path, if it is a plain file: to open a named pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise SnapshotError(f"{path} is not a file")
    return path


def _check_version(path: Path, told: str | None, version: str) -> None:
    if told not in (None, version):
        raise SnapshotError(f"{path} is of another snapshot, {told!r}")


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    made = 0
    for name in sorted(tensors):
        made = crc32c.crc32c(name.encode(), made)
        made = crc32c.crc32c(tensors[name].reshape(-1).view(torch.uint8).numpy().data, made)
    return made
