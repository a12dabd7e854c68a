"""Events on disk, given back in the order of their times; DuckDB sorts them in little memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from process.text import visible
from streamgcn.files.source import FileError

SMALL_FILE = 630_000_000  # bytes of SCHEMA's columns: 10 million rows with ids of eight bytes
MEMORY_MB = 120  # of DuckDB, for the runs of a small file; what is more lies in its folder
MERGED = 122_880  # rows that DuckDB merges at a time; all of them are in memory
OUT = 100_000  # rows of a block that is given back
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("interaction", pa.float64()),
        pa.field("type", pa.string()),
        pa.field("timestamp", pa.int64()),
        pa.field("number", pa.int64()),
    ]
)
SORTED = """
    SELECT user_id, item_id, interaction, type, coalesce(timestamp, $default_ms) AS moment
    FROM read_parquet($file) ORDER BY moment, number"""


class Ordered:
    """A file of events in a folder; close it before the folder goes."""

    def __init__(self, folder: Path) -> None:
        self._rows = 0
        self._bytes = 0
        self._timed = False
        self._folder = folder
        self._file = folder / "events.parquet"
        self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd")

    def __len__(self) -> int:
        return self._rows

    @property
    def timed(self) -> bool:
        """Whether an event has a time of its own."""
        return self._timed

    def add(self, events: pa.Table) -> None:
        """Append events as consumer/event/rules.py returns them.

        Raises:
            FileError: the disk is full.
        """
        numbers = np.arange(self._rows, self._rows + len(events))
        self._rows += len(events)
        self._timed |= events["timestamp"].null_count < len(events)
        try:
            numbered = events.append_column("number", pa.array(numbers)).select(SCHEMA.names)
            self._writer.write_table(numbered)
        except OSError as error:
            raise _failed(error) from error
        self._bytes += numbered.nbytes

    def blocks(self, default_ms: int) -> Iterator[pa.Table]:
        """All events, oldest first, those of one time in the order in which they were added.

        No event can be added any more.

        Args:
            default_ms: the time of events without one, epoch milliseconds.

        Returns:
            Columns user_id, item_id, interaction, type and timestamp (microseconds, UTC), as the
            edge store and the graph have them.
        """
        import duckdb  # here alone: where a process ends in haste it prints what it has leaked

        # DuckDB sorts runs as large as its memory, and then has a piece of each run in memory. With
        # more memory there are fewer runs too: four times as many bytes need twice as much.
        memory = MEMORY_MB * max(1.0, math.sqrt(self._bytes / SMALL_FILE))
        memory += self._bytes * MERGED / max(MERGED, len(self)) / 1e6
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory:.0f}MB",
            "threads": 1,
            "temp_directory": str(self._folder / "sort"),
        }
        try:
            self._writer.close()
            with duckdb.connect(config=settings) as sorter:
                given = {"default_ms": default_ms, "file": str(self._file)}
                for batch in sorter.sql(SORTED, params=given).to_arrow_reader(OUT):
                    times = pc.multiply(batch["moment"], 1000).cast(pa.timestamp("us", "UTC"))
                    rows = pa.Table.from_batches([batch.drop_columns(["moment"])])
                    yield rows.append_column("timestamp", times)
        except (duckdb.Error, OSError) as error:
            raise _failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._writer.close()


def _failed(error: Exception) -> FileError:
    return FileError(
        f"the events cannot be put in order: {visible(str(error), 200)}; TMPDIR names the folder "
        "in which that is done"
    )
