"""Small files of interactions, and what is read of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamgcn.files.columns import Columns
from streamgcn.files.load import load
from streamgcn.files.options import Options

NOW = 1_795_000_000_000  # the time of events without one
Row = tuple[str, str, float, str]


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def events(*files: str, **options: Any) -> tuple[list[Row], list[int], list[str]]:
    """Events as (user, item, interaction, type), their epoch milliseconds, and what was said."""
    roles = ("user", "item", "interaction", "timestamp", "type")
    named = Columns(**{name: options.pop(name) for name in roles if name in options})
    with load(list(files), Options(named, **options)) as loaded:
        loaded.refuse_wrong()
        blocks = list(loaded.blocks(NOW))
        notes = loaded.notes
    table = pa.concat_tables(blocks)
    fields = [table[name].to_pylist() for name in ("user_id", "item_id", "interaction", "type")]
    times = [ms // 1000 for ms in table["timestamp"].cast(pa.int64()).to_pylist()]
    return list(zip(*fields, strict=True)), times, notes


def of(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    return [row[:3] for row in rows]
