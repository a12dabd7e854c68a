"""A file of rows that is put before its commit, and taken back where the commit does not come.

The Delta library leaves such a file behind, with users' rows that no erasure finds: nothing but
its age tells it from a file that is being written. A file that this process has named is known.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from obstore.exceptions import BaseError

from consumer import path
from consumer.edge import bucket
from consumer.edge.schema import WITH_STATISTICS
from process import atomic


class NewFile:
    """A Parquet file in the place, with a name that no other writer takes."""

    def __init__(self, uri: str) -> None:
        """Nothing is put yet.

        Args:
            uri: of the place, as the table tells it.
        """
        self.name = f"part-{uuid4()}.snappy.parquet"
        self.was_put = False
        self._uri = uri
        self._folder = path.folder(uri)

    def put(self, rows: pa.Table) -> AddAction:
        """Put rows, in the place of those that were put before; what a commit says of the file.

        In a folder the file is whole and on the disk before a commit can name it.

        Raises:
            OSError, BaseError: the place takes no writes; nothing is left there.
        """
        buffer = pa.BufferOutputStream()
        pq.write_table(rows, buffer, compression="snappy")
        content = buffer.getvalue().to_pybytes()
        self.was_put = True
        try:
            self._put(content)
        except BaseException:
            self.take_back()
            raise
        now = time.time_ns() // 1_000_000
        return AddAction(self.name, len(content), {}, now, True, json.dumps(_statistics(rows)))

    def take_back(self) -> None:
        """Delete it, as far as that can be done."""
        with suppress(OSError, BaseError):
            if self._folder:
                (self._folder / self.name).unlink(missing_ok=True)
            else:
                bucket.delete(self._uri, self.name)

    def _put(self, content: bytes) -> None:
        if not self._folder:
            bucket.put(self._uri, self.name, content)
            return
        draft = self._folder / f"{self.name}.draft"  # which is no file of rows to anybody
        try:
            draft.write_bytes(content)
            atomic.replace(draft, self._folder / self.name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _statistics(rows: pa.Table) -> dict[str, Any]:
    """Least, largest and number of nulls of the columns by which readers choose files."""
    least, largest, nulls = {}, {}, {}
    for name in WITH_STATISTICS:
        ends = pc.min_max(rows[name]).as_py()
        nulls[name] = rows[name].null_count
        if ends["min"] is not None:
            least[name], largest[name] = _shown(ends["min"]), _shown(ends["max"])
    return {"numRecords": len(rows), "minValues": least, "maxValues": largest, "nullCount": nulls}


def _shown(value: datetime | int) -> str | int:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value
