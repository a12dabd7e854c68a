"""The files of a snapshot: each says which version it belongs to and carries checksums.

So a file that was damaged, or put there from another snapshot, is told from a right one although
it is whole. Files of the first version say neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import crc32c
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.storage import File, Target

VERSION, CHECKSUM = "version", "crc32c"


def write_tensors(target: Target, tensors: Mapping[str, Tensor], version: str) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError, SafetensorError: the disk refuses.
    """
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    told = {VERSION: version, CHECKSUM: str(_checksum(whole))}
    if isinstance(target, Path):
        save_file(whole, target, told)
    else:
        target.write(save(whole, told))


def read_tensors(file: File, version: str) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        SnapshotError: it is of another snapshot, or not what was written.
        OSError, SafetensorError: it cannot be read.
    """
    found, told = _tensors(file.content)
    _check_version(file, told.get(VERSION), version)
    if CHECKSUM in told and told[CHECKSUM] != str(_checksum(found)):
        raise SnapshotError(f"{file} was changed since it was written: its checksum differs")
    return found


def write_ids(target: Target, column: str, ids: pa.Array, version: str) -> None:
    """Write ids as Parquet.

    Raises:
        OSError, ArrowException: the disk refuses.
    """
    table = pa.table({column: ids}).replace_schema_metadata({VERSION: version})
    pq.write_table(table, target, write_page_checksum=True)


def read_ids(file: File, version: str) -> pa.Table:
    """A table of ids, all of them UTF-8.

    Raises:
        SnapshotError: it is of another snapshot.
        OSError, ArrowException: it cannot be read, or is not what was written.
    """
    content = file.content
    source = content if isinstance(content, Path) else pa.BufferReader(content)
    table = pq.read_table(source, page_checksum_verification=True)
    told = (table.schema.metadata or {}).get(VERSION.encode())
    _check_version(file, told.decode(errors="replace") if told else None, version)
    table.validate(full=True)
    return table


def write_bytes(target: Target, content: bytes) -> None:
    """Write what is ready.

    Raises:
        OSError: the disk refuses.
    """
    if isinstance(target, Path):
        target.write_bytes(content)
    else:
        target.write(content)


def _tensors(content: Path | bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and what its writer told of them."""
    if isinstance(content, Path):
        with safe_open(content, "pt") as file:
            told = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118
    found = load(content)  # which tells nothing, and sees that the file is whole
    length = int.from_bytes(content[:8], "little")
    return found, msgspec.json.decode(content[8 : 8 + length], type=_Header).told


class _Header(msgspec.Struct):
    """The head of a file of tensors, as far as it is of interest."""

    told: dict[str, str] = msgspec.field(default_factory=dict, name="__metadata__")


def _check_version(file: File, told: str | None, version: str) -> None:
    if told not in (None, version):
        raise SnapshotError(f"{file} is of another snapshot, {told!r}")


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    made = 0
    for name in sorted(tensors):
        made = crc32c.crc32c(name.encode(), made)
        made = crc32c.crc32c(tensors[name].reshape(-1).view(torch.uint8).numpy().data, made)
    return made
